"""Verifies tokens with PyJWT, authlib and jwcrypto, as verify.mjs does with its libraries."""

import json
import sys
import urllib.request

import authlib
import authlib.jose
import jwcrypto.jwk
import jwcrypto.jwt
import jwt

with open(sys.argv[1], encoding="utf-8") as f:
    case = json.load(f)
issuer, audience, algorithms = case["issuer"], case["audience"], case["algorithms"]


def fetch(url):
    with urllib.request.urlopen(url) as answer:
        return answer.read().decode()


def pyjwt(url):
    client = jwt.PyJWKClient(url)

    def verify(token):
        jwt.decode(token, client.get_signing_key_from_jwt(token).key, algorithms=algorithms, issuer=issuer, audience=audience)

    return verify


# The others fetch nothing: the application does, here once for each token.


def with_authlib(url):
    def verify(token):
        keys = authlib.jose.JsonWebKey.import_key_set(json.loads(fetch(url)))
        options = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": audience}}
        authlib.jose.JsonWebToken(algorithms).decode(token, keys, claims_options=options).validate()

    return verify


def with_jwcrypto(url):
    def verify(token):
        keys = jwcrypto.jwk.JWKSet.from_json(fetch(url))
        jwcrypto.jwt.JWT(jwt=token, key=keys, algs=algorithms, check_claims={"iss": issuer, "aud": audience})

    return verify


def attempt(f):
    try:
        f()
        return ""
    except Exception as e:  # whatever it is, the test shows it
        return f"{type(e).__name__}: {e}"


def version_of(package):
    from importlib.metadata import version

    return version(package)


base = case["base"]
libraries = {"PyJWT": pyjwt, "Authlib": with_authlib, "jwcrypto": with_jwcrypto}
results = {}
for name, library in libraries.items():  # first of all: it is not early for long
    results[name] = {"early": attempt(lambda: library(f"{base}/keys/ES256")(case["early"]))}
for name, library in libraries.items():
    result = results[name]
    result.update(version=version_of(name), alone={}, mixed={})
    for alg in algorithms:
        result["alone"][alg] = attempt(lambda: library(f"{base}/keys/{alg}")(case["tokens"][alg]))
        result["mixed"][alg] = attempt(lambda: library(f"{base}/keys/mixed")(case["tokens"][alg]))
    verify = library(f"{base}/keys/rotating/{name}")
    result["before"] = attempt(lambda: verify(case["tokens"]["ES256"]))
    result["unknown"] = attempt(lambda: verify(case["next"]))
    fetch(f"{base}/rotate/{name}")
    result["next"] = attempt(lambda: verify(case["next"]))
    for what in "late", "tampered", "foreign", "elsewhere":
        result[what] = attempt(lambda: library(f"{base}/keys/ES256")(case[what]))
json.dump(results, sys.stdout)
