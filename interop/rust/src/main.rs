//! jsonwebtoken, behind HTTP: see ../README.md.

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use serde_json::Value;
use std::error::Error;
use std::time::{Duration, Instant};
use tiny_http::{Response, Server};

fn env(name: &str) -> String {
    std::env::var(name).expect(name)
}

fn main() {
    let server = Server::http(format!("127.0.0.1:{}", env("PORT"))).unwrap();
    let mut client = Client { fetched: None };
    for request in server.incoming_requests() {
        let header = request.headers().iter().find(|h| h.field.equiv("Authorization"));
        let token = header.and_then(|h| h.value.as_str().strip_prefix("Bearer ")).unwrap_or("").to_string();
        let (status, text) = match client.verify(&token) {
            Ok(claims) => (200, claims["sub"].to_string()),
            Err(err) => (401, err.to_string()),
        };
        let _ = request.respond(Response::from_string(text).with_status_code(status));
    }
}

struct Client {
    fetched: Option<(Instant, JwkSet)>,
}

impl Client {
    fn verify(&mut self, token: &str) -> Result<Value, Box<dyn Error>> {
        let algorithm: Algorithm = env("ALGORITHM").parse()?;
        let mut rules = Validation::new(algorithm);
        rules.set_issuer(&[env("ISSUER")]);
        rules.set_audience(&[env("AUDIENCE")]);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        let header = decode_header(token)?;
        if header.typ.as_deref() != Some("at+jwt") {
            return Err("not an access token".into());
        }
        let jwk = self.jwks()?.find(&header.kid.unwrap_or_default()).ok_or("unknown kid")?;
        Ok(decode::<Value>(token, &DecodingKey::from_jwk(jwk)?, &rules)?.claims)
    }

    fn jwks(&mut self) -> Result<&JwkSet, Box<dyn Error>> {
        if self.fetched.as_ref().is_none_or(|(at, _)| at.elapsed() > Duration::from_secs(300)) {
            self.fetched = Some((Instant::now(), ureq::get(env("JWKS_URI")).call()?.body_mut().read_json()?));
        }
        Ok(&self.fetched.as_ref().unwrap().1)
    }
}
