"""PyJWT with its PyJWKClient: a request a line in, an answer a line out."""

import importlib.metadata
import json
import sys
import urllib.request

import jwt


def create(issuer, audience, algorithm):
    """Return a function of a token that returns its sub claim."""
    with urllib.request.urlopen(issuer + "/.well-known/openid-configuration", timeout=10) as response:
        keys = jwt.PyJWKClient(json.load(response)["jwks_uri"])

    def verify(token):
        key = keys.get_signing_key_from_jwt(token)
        claims = jwt.decode(
            token, key, algorithms=[algorithm], audience=audience, issuer=issuer,
            options={"require": ["exp"]},
        )
        return claims["sub"]

    return verify


def main():
    print(json.dumps({"version": importlib.metadata.version("PyJWT")}), flush=True)
    verifiers = {}
    for line in sys.stdin:
        request = json.loads(line)
        name = request["issuer"], request["verifier"]
        try:
            if name not in verifiers:
                verifiers[name] = create(request["issuer"], request["audience"], request["algorithm"])
            answer = {"subject": verifiers[name](request["token"])}
        except Exception as err:  # whatever the library raises is its answer
            answer = {"error": f"{type(err).__name__}: {err}"}
        print(json.dumps(answer), flush=True)


main()
