// The client that the argument names, behind HTTP: see ../README.md.
import { createServer } from "node:http";

const { PORT, ISSUER: issuer, JWKS_URI: jwksUri, AUDIENCE: audience, ALGORITHM: algorithm } = process.env;

// Each function returns one that checks a token and returns its sub claim, or an Express app.
const clients = {
  async jose() {
    const { createRemoteJWKSet, jwtVerify } = await import("jose");
    const keys = createRemoteJWKSet(new URL(jwksUri));
    return async (token) => {
      const { payload } = await jwtVerify(token, keys, {
        issuer, audience, algorithms: [algorithm], typ: "at+jwt", requiredClaims: ["exp"],
      });
      return payload.sub;
    };
  },

  async "aws-jwt-verify"() {
    const { JwtVerifier } = await import("aws-jwt-verify");
    const verifier = JwtVerifier.create({
      issuer, audience, jwksUri,
      customJwtCheck: ({ header }) => {
        if (header.typ !== "at+jwt") throw new Error("not an access token");
      },
    });
    return async (token) => (await verifier.verify(token)).sub;
  },

  async "jwks-rsa"() {
    const { default: jwksClient } = await import("jwks-rsa");
    const { default: jwt } = await import("jsonwebtoken");
    const keys = jwksClient({ jwksUri });
    const key = ({ kid, typ }, done) => typ !== "at+jwt"
      ? done(new Error("not an access token"))
      : keys.getSigningKey(kid, (err, key) => done(err, key?.getPublicKey()));
    return (token) => new Promise((resolve, reject) => {
      jwt.verify(token, key, { issuer, audience, algorithms: [algorithm] },
        (err, claims) => err ? reject(err) : resolve(claims.sub));
    });
  },

  async "express-oauth2-jwt-bearer"() {
    const { default: express } = await import("express");
    const { auth } = await import("express-oauth2-jwt-bearer");
    const app = express();
    app.use(auth({ issuer, jwksUri, audience, tokenSigningAlg: algorithm, strict: true }));
    app.get("/", (request, response) => response.end(request.auth.payload.sub));
    return app;
  },
};

const handler = (verify) => async ({ headers }, response) => {
  try {
    response.end(await verify(headers.authorization.slice("Bearer ".length)));
  } catch (err) {
    response.writeHead(401).end(`${err.name}: ${err.message}`);
  }
};
const client = await clients[process.argv[2]]();
createServer(client.listen ? client : handler(client)).listen(PORT, "127.0.0.1");
