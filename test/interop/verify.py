"""Verifies tokens with PyJWT; interop_test.go runs it.

Reads {"issuer", "audience", "keys", "tokens"} from the file named on the command
line, or "url" instead of "keys"; takes each token's key from the key set by kid,
as PyJWKClient does and for a URL is asked to do; and prints how many were verified
and what was wrong with the others, as JSON.
"""

import json
import sys

import jwt

with open(sys.argv[1], encoding="utf-8") as f:
    case = json.load(f)

if "url" in case:
    client = jwt.PyJWKClient(case["url"])
    published = client.fetch_data()
    find = client.get_signing_key
else:
    published = case["keys"]
    find = {key.key_id: key for key in jwt.PyJWKSet.from_dict(published).keys}.__getitem__
algorithms = {key["kid"]: key["alg"] for key in published["keys"]}
verified, failed = 0, []
for token in case["tokens"]:
    try:
        kid = jwt.get_unverified_header(token)["kid"]
        jwt.decode(
            token,
            find(kid).key,
            algorithms=[algorithms[kid]],
            issuer=case["issuer"],
            audience=case["audience"],
            options={"require": ["iss", "sub", "aud", "exp", "iat", "nbf", "jti"]},
        )
        verified += 1
    except Exception as e:  # whatever it is, the test shows it
        failed.append(f"{kid}: {e!r}")
json.dump({"keys": len(algorithms), "verified": verified, "failed": failed}, sys.stdout)
