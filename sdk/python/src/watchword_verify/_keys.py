"""Keys and key sets (RFC 7517, RFC 7518 §6, RFC 8037 §2)."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.hazmat.backends import default_backend
from jwt.algorithms import Algorithm, get_default_algorithms

from ._strict import decode_base64, decode_object, encode_base64

default_backend()  # has it loaded now: a child must not import it, as a thread of its parent may have held its lock

MAX_KEY_ID = 256
"""The greatest length of a kid. It is looked up before anything has been verified."""
MAX_KEY_SET = 1 << 20
"""The greatest length of a key set, in bytes."""
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192

# The order of each curve (SEC 2 §2), for the one form of a signature that is accepted.
_ORDERS = {
    "ES256": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "ES384": 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973,
    "ES512": 0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409,
}
_CURVES = {"P-256": ("ES256", 32), "P-384": ("ES384", 48), "P-521": ("ES512", 66)}
_SECRET_LENGTHS = {"HS256": 32, "HS384": 48, "HS512": 64}
_METHODS: Mapping[str, Algorithm] = {
    name: method
    for name, method in get_default_algorithms().items()
    if name in ("ES256", "ES384", "ES512", "EdDSA", "RS256", "PS256", *_SECRET_LENGTHS)
}
ALGORITHMS = frozenset(_METHODS)
"""The algorithms of keys that verify access tokens."""


class KeySetError(ValueError):
    """A key set as a whole is not accepted."""


class _Unsupported(ValueError):
    """A key is well-formed and not for access tokens: the set may hold it (RFC 7517 §5)."""


@dataclass(frozen=True, slots=True, eq=False)
class Key:
    """A public key or a shared secret, bound to one name and one algorithm.

    The algorithm is a property of the key, never of the token (RFC 8725 §3.1).
    """

    id: str
    algorithm: str
    material: bytes = field(repr=False)
    """What the key is, in one form, so that two keys can be compared."""
    _key: Any = field(repr=False)  # as PyJWT's Algorithm takes it

    def equals(self, other: Key) -> bool:
        """Report whether both are the same key with the same algorithm, under whatever names."""
        return self is other or (
            self.algorithm == other.algorithm and hmac.compare_digest(self.material, other.material)
        )

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Report whether the signature is this key's over what was signed."""
        try:
            return _METHODS[self.algorithm].verify(signed, self._key, signature)
        except (ValueError, TypeError, jwt.exceptions.PyJWTError):
            return False

    def is_canonical(self, signature: bytes) -> bool:
        """Report whether a good signature is in the one form that is accepted.

        With every ECDSA signature (r, s), (r, n-s) is good too, and anybody can compute one
        from the other. The issuer uses the one whose s is at most half the order.
        """
        order = _ORDERS.get(self.algorithm)
        return order is None or int.from_bytes(signature[len(signature) // 2 :]) <= order // 2


def check_key_id(kid: str) -> None:
    """Raise ValueError unless the text may name a key: printable ASCII without spaces."""
    if not 0 < len(kid) <= MAX_KEY_ID or not kid.isascii() or any(not "!" <= c <= "~" for c in kid):
        raise ValueError(f"a key's id has 1 to {MAX_KEY_ID} bytes of printable ASCII without spaces")


def parse_key_set(data: bytes, former: Mapping[str, Key] | None = None) -> dict[str, Key]:
    """Read a JWK Set and return its keys by kid.

    A key that is not for access tokens is passed over. A key that is broken, a private key, or
    one kid for two keys makes the whole set a KeySetError, so that half a set is never taken
    for all of it. A key that the former set has as well is the same object.
    """
    if len(data) > MAX_KEY_SET:
        raise KeySetError(f"longer than {MAX_KEY_SET} bytes")
    try:
        listed = decode_object(data).get("keys")
        if type(listed) is not list:
            raise KeySetError("the member keys is not an array")
        keys: dict[str, Key] = {}
        for members in listed:
            if type(members) is not dict:
                raise KeySetError("a key is not an object")
            try:
                key = _parse_key(members)
            except _Unsupported:
                continue
            if not keys.setdefault(key.id, key).equals(key):
                raise KeySetError(f"the kid {key.id!r} names two keys")
    except KeySetError:
        raise
    except ValueError as e:
        raise KeySetError(str(e)) from e
    for kid, key in (former or {}).items():
        if kid in keys and key.equals(keys[kid]):
            keys[kid] = key
    return keys


def secret_keys(secrets: Iterable[str]) -> dict[str, Key]:
    """Return the keys of shared secrets by kid: one for each algorithm for which a secret is
    long enough (RFC 7518 §3.2). Raises ValueError.
    """
    keys: dict[str, Key] = {}
    for number, text in enumerate(secrets, 1):
        secret = text.encode()
        fitting = [name for name, least in _SECRET_LENGTHS.items() if len(secret) >= least]
        if not fitting:
            raise ValueError(f"secret {number} has {len(secret)} bytes; it needs {_SECRET_LENGTHS['HS256']} at least")
        for name in fitting:
            label = f"watchword signing secret 1: {name}".encode()
            kid = encode_base64(hmac.digest(secret, label, "sha256")[:16])
            if kid in keys:
                raise ValueError(f"secret {number}, with the kid {kid}, is in the list twice")
            keys[kid] = Key(kid, name, hashlib.sha256(secret).digest(), secret)
    return keys


def _parse_key(members: dict[str, Any]) -> Key:
    for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        if name in members:
            raise ValueError(f"a key has the private member {name!r}, which must never be published")
    jwk: dict[str, str] = {}
    for name in ("kty", "use", "alg", "kid", "crv", "x", "y", "n", "e"):
        value = members.get(name, "")
        if type(value) is not str:
            raise ValueError(f"the member {name!r} of a key is not a string")
        jwk[name] = value
    if not jwk["kty"]:
        raise ValueError("a key has no kty")
    _for_verifying(members, jwk["use"])
    if not jwk["kid"]:
        raise _Unsupported("it has no kid")
    match jwk["kty"]:
        case "EC":
            material = _ec(jwk)
        case "OKP":
            material = _okp(jwk)
        case "RSA":
            material = _rsa(jwk)
        case kty:
            raise _Unsupported(f"kty {kty!r}")
    check_key_id(jwk["kid"])
    try:
        # As a text, because PyJWT takes a dict only since 2.7, and Debian 12 has 2.6.
        public = _METHODS[jwk["alg"]].from_jwk(json.dumps({name: value for name, value in jwk.items() if value}))
    except jwt.exceptions.PyJWTError as e:
        raise ValueError(str(e)) from e
    return Key(jwk["kid"], jwk["alg"], material, public)


def _for_verifying(members: dict[str, Any], use: str) -> None:
    """Respect use and key_ops (RFC 7517 §4.2, §4.3)."""
    if "use" in members and use != "sig":
        raise _Unsupported(f"its use is {use!r}")
    if "key_ops" not in members:
        return
    operations = members["key_ops"]
    if type(operations) is not list or any(type(one) is not str for one in operations):
        raise ValueError("key_ops is not an array of strings")
    if len(set(operations)) != len(operations):
        raise ValueError("key_ops names an operation twice")
    if "verify" not in operations:
        raise _Unsupported("its key_ops do not include verify")


def _ec(jwk: dict[str, str]) -> bytes:
    if jwk["crv"] not in _CURVES:
        raise _Unsupported(f"crv {jwk['crv']!r}")
    algorithm, size = _CURVES[jwk["crv"]]
    _fix_algorithm(jwk, algorithm)
    coordinates = [decode_base64(jwk[name]) for name in ("x", "y")]
    if any(len(one) != size for one in coordinates):
        raise ValueError(f"a coordinate of {jwk['crv']} does not have {size} bytes")
    return b"".join(coordinates)  # that the point is on the curve, the library checks


def _okp(jwk: dict[str, str]) -> bytes:
    if jwk["crv"] != "Ed25519":
        raise _Unsupported(f"crv {jwk['crv']!r}")
    _fix_algorithm(jwk, "EdDSA")
    x = decode_base64(jwk["x"])
    if len(x) != 32:
        raise ValueError("x of Ed25519 does not have 32 bytes")
    return x


def _fix_algorithm(jwk: dict[str, str], algorithm: str) -> None:
    """Note the algorithm that the curve decides, unless the key names another one."""
    if jwk["alg"] not in ("", algorithm):
        raise _Unsupported(f"alg {jwk['alg']!r} with crv {jwk['crv']!r}")
    jwk["alg"] = algorithm


def _rsa(jwk: dict[str, str]) -> bytes:
    if jwk["alg"] not in ("RS256", "PS256"):
        raise _Unsupported(f"alg {jwk['alg']!r} with kty RSA")
    n_bytes, e_bytes = decode_base64(jwk["n"]), decode_base64(jwk["e"])
    if not n_bytes or not e_bytes or n_bytes[0] == 0 or e_bytes[0] == 0:
        raise ValueError("a number of an RSA key is not in the fewest bytes")  # RFC 7518 §2
    n, e = int.from_bytes(n_bytes), int.from_bytes(e_bytes)
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS or n % 2 == 0:
        raise ValueError(f"an RSA modulus is an odd number of {MIN_RSA_BITS} to {MAX_RSA_BITS} bits")
    if not 3 <= e < 1 << 31 or e % 2 == 0:
        raise ValueError("an RSA exponent is an odd number from 3 to 2^31-1")
    if _is_roca(n):
        raise ValueError("the RSA key can be factored (CVE-2017-15361)")
    return n_bytes + b"\0" + e_bytes


def _is_roca(n: int) -> bool:
    """Report whether the modulus comes from the library of certain Infineon chips: modulo each
    of these primes it is a power of 65537. One good key in 2^27 looks so too.
    See https://crocs.fi.muni.cz/public/papers/rsa_ccs17.
    """
    primes = (11, 13, 17, 19, 37, 53, 61, 71, 73, 79, 97, 103, 107, 109, 127, 151, 157)
    return all(n % p in {pow(65537, i, p) for i in range(p)} for p in primes)
