"""The client that the argument names, behind HTTP: see ../README.md."""

import http.server
import json
import os
import sys
import time
import urllib.request

issuer, audience = os.environ["ISSUER"], os.environ["AUDIENCE"]
algorithm, jwks_uri = os.environ["ALGORITHM"], os.environ["JWKS_URI"]


cached = {"until": 0}


def jwks():
    if time.monotonic() > cached["until"]:
        with urllib.request.urlopen(jwks_uri, timeout=10) as response:
            cached.update(keys=json.load(response), until=time.monotonic() + 300)
    return cached["keys"]


# Each function returns one that checks a token and returns its sub claim.


def pyjwt():
    import jwt

    client = jwt.PyJWKClient(jwks_uri)

    def verify(token):
        key = client.get_signing_key_from_jwt(token)
        checked = jwt.decode_complete(
            token, key, algorithms=[algorithm], audience=audience, issuer=issuer,
            options={"require": ["exp", "sub"]})
        if checked["header"].get("typ") != "at+jwt":
            raise jwt.InvalidTokenError("not an access token")
        return checked["payload"]["sub"]

    return verify


def authlib():
    from authlib.oauth2.rfc9068 import JWTBearerTokenValidator

    class Validator(JWTBearerTokenValidator):
        def get_jwks(self):
            return jwks()

    validator = Validator(issuer=issuer, resource_server=audience)

    def verify(token):
        claims = validator.authenticate_token(token)
        validator.validate_token(claims, scopes=None, request=None)
        return claims["sub"]

    return verify


def joserfc():
    from joserfc import jwt
    from joserfc.jwk import KeySet

    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience},
        exp={"essential": True})

    def verify(token):
        decoded = jwt.decode(token, KeySet.import_key_set(jwks()), algorithms=[algorithm])
        rules.validate(decoded.claims)
        if decoded.header.get("typ") != "at+jwt":
            raise ValueError("not an access token")
        return decoded.claims["sub"]

    return verify


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, text = 200, check(self.headers["Authorization"].removeprefix("Bearer "))
        except Exception as err:  # whatever the library raises is its answer
            status, text = 401, f"{type(err).__name__}: {err}"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


check = {"PyJWT": pyjwt, "Authlib": authlib, "joserfc": joserfc}[sys.argv[1]]()
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
