"""The settings of docs/resource-servers.md, as settings.mjs has them for its libraries."""

import json
import sys
import urllib.request

import jwt
from authlib.jose import JsonWebKey, JsonWebToken
from jwcrypto.jwk import JWKSet
from jwcrypto.jwt import JWT

with open(sys.argv[1], encoding="utf-8") as f:
    case = json.load(f)
issuer, audience, key_set_url = case["issuer"], case["audience"], case["plain"]
with urllib.request.urlopen(key_set_url) as answer:
    key_set = answer.read().decode()


def pyjwt():
    keys = jwt.PyJWKClient(key_set_url, lifespan=300)

    def verify(token):
        key = keys.get_signing_key_from_jwt(token).key
        claims = jwt.decode(
            token, key, algorithms=["ES256"], issuer=issuer, audience=audience, leeway=5,
            options={"require": ["iss", "sub", "aud", "exp"]},
        )
        if jwt.get_unverified_header(token).get("typ") != "at+jwt":  # verified by now
            raise ValueError("no access token")
        return claims

    return verify


def with_authlib():
    rules = {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": audience},
        "exp": {"essential": True},
    }

    def verify(token):
        keys = JsonWebKey.import_key_set(json.loads(key_set))
        claims = JsonWebToken(["ES256"]).decode(token, keys, claims_options=rules)
        claims.validate(leeway=5)
        if claims.header.get("typ") != "at+jwt":
            raise ValueError("no access token")
        return claims

    return verify


def with_jwcrypto():
    def verify(token):
        t = JWT(algs=["ES256"], check_claims={"iss": issuer, "aud": audience, "exp": None, "nbf": None})
        t.leeway = 5  # without it: 60
        t.deserialize(token, JWKSet.from_json(key_set))
        if json.loads(t.header).get("typ") != "at+jwt":
            raise ValueError("no access token")
        return json.loads(t.claims)

    return verify


results = {}
for name, library in {"PyJWT": pyjwt, "Authlib": with_authlib, "jwcrypto": with_jwcrypto}.items():
    check, results[name] = library(), {}
    for what, text in case["tokens"].items():
        try:
            check(text)
            results[name][what] = ""
        except Exception as e:  # whatever it is, the test shows it
            results[name][what] = f"{type(e).__name__}: {e}"
json.dump(results, sys.stdout)
