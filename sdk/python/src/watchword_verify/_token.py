"""Access tokens and the rules that they must meet (RFC 7519, RFC 8725, RFC 9068)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ._errors import VerifyError
from ._keys import ALGORITHMS, Key, check_key_id
from ._strict import NotCanonical, decode_base64, decode_object

MAX_TOKEN = 8 << 10
"""The greatest length of a token, in bytes. It travels in a header."""

# The end of the year 9999: what RFC 3339 can still say.
_LAST_SECOND = 253402300799
_MAX_INT64 = (1 << 63) - 1


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """An access token that was accepted. It does not change, and may be shared.

    Times are seconds since 1970, perhaps with a fraction.
    """

    key_id: str
    """kid: the key that signed it."""
    issuer: str
    subject: str
    """sub: the id of its user."""
    audience: tuple[str, ...]
    id: str
    """jti."""
    session_id: str
    """sid; empty if it belongs to no session."""
    epoch: int
    """How often everything of the user had been revoked; 0 if absent."""
    expires_at: float
    issued_at: float
    """iat_exact, or iat, which an issuer may date back."""
    not_before: float | None
    auth_time: float | None
    """When the user authenticated last (RFC 9068 §2.2.1); None if absent."""
    amr: tuple[str, ...]
    """The methods by which the user authenticated (RFC 8176)."""
    acr: str
    """How strong that was (OpenID Connect Core §2); empty if absent."""
    scope: tuple[str, ...]
    """What the token is good for (RFC 8693 §4.2)."""
    payload: str = field(repr=False)
    """What was signed: the claims as one JSON object."""
    _claims: Mapping[str, Any] = field(repr=False)

    @property
    def claims(self) -> dict[str, Any]:
        """A copy of all members of the payload, also the registered ones."""
        copy: dict[str, Any] = _copy(self._claims)
        return copy

    def claim(self, name: str) -> str:
        """Return the claim of that name if it is a string, else the empty string."""
        value = self._claims.get(name)
        return value if type(value) is str else ""

    def has_value(self, name: str, value: str) -> bool:
        """Report whether the claim of that name holds the value. A claim that a user has
        several times is one string, its values joined with commas.
        """
        return value != "" and value in self.claim(name).split(",")


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class Rules:
    """What an access token must meet."""

    issuer: str
    audience: frozenset[str]
    leeway: float
    """By how much clocks may differ, in seconds: exp and nbf are judged in the token's favour."""

    def check(self, compact: str, now: float, find: Callable[[str], Key]) -> tuple[Token, Key]:
        """Accept a token at the moment now, or raise VerifyError (RFC 9068 §4, RFC 8725 §3).

        find looks up the key that the token names; whatever it raises is raised. It is asked
        once at most, only for a token that is well-formed and of an accepted algorithm.
        Revocation is not checked here.
        """
        header, payload, signature, signed = _split(compact)
        alg, kid = _judge_header(header)
        if alg not in ALGORITHMS:
            raise VerifyError("token_algorithm")
        if not kid:
            raise VerifyError("token_malformed", "the token does not name its key (kid)")
        key = find(kid)
        if key.algorithm != alg:
            raise VerifyError("token_algorithm", "the token's algorithm is not the one of the key that it names")
        if not key.verify(signed, signature):
            raise VerifyError("token_signature")
        if not key.is_canonical(signature):
            raise VerifyError(
                "token_malformed",
                "the token's signature is in the form with the greater s, which Watchword does not issue: it was changed",
            )
        token = _read(kid, payload)
        self.judge(token, now)
        return token, key

    def judge(self, token: Token, now: float) -> None:
        """Raise VerifyError if issuer, audience or times are wrong. iat is not judged: no RFC
        asks for it, and an issuer's clock may be a little ahead.
        """
        if token.issuer != self.issuer:
            raise VerifyError("token_issuer")
        if self.audience.isdisjoint(token.audience):
            raise VerifyError("token_audience")
        if now >= token.expires_at + self.leeway:
            raise VerifyError("token_expired", f"the token expired at {_rfc3339(token.expires_at)}")
        if token.not_before is not None and now < token.not_before - self.leeway:
            raise VerifyError("token_not_yet_valid", f"the token is not valid before {_rfc3339(token.not_before)}")


def bearer(authorization: list[str]) -> str:
    """Return the token in a request's Authorization headers (RFC 6750 §2.1, RFC 9110 §11.4).

    There must be exactly one such header, because a service behind this one might read another
    of several. Raises VerifyError. The token is not looked at.
    """
    if len(authorization) > 1:
        raise VerifyError("invalid_request")
    scheme, _, token = (authorization[0] if authorization else "").strip(" \t").partition(" ")
    token = token.lstrip(" ")
    if scheme.lower() != "bearer" or not token:
        raise VerifyError("token_missing")
    return token


def _split(compact: str) -> tuple[bytes, bytes, bytes, bytes]:
    """Take the compact form apart (RFC 7515 §7.1): header, payload, signature, what was signed.
    Each part has only one spelling.
    """
    if len(compact) > MAX_TOKEN:
        raise VerifyError("token_malformed", f"the token is longer than {MAX_TOKEN} bytes")
    parts = compact.split(".")
    if len(parts) != 3:
        raise VerifyError("token_malformed", "the token does not have three parts separated by dots")
    try:
        header, payload, signature = map(decode_base64, parts)
    except NotCanonical as e:
        detail = "a part of the token ends in bits that belong to nothing: it was changed or cut off"
        raise VerifyError("token_malformed", detail) from e
    except ValueError as e:
        raise VerifyError("token_malformed", "a part of the token is not base64url without padding") from e
    return header, payload, signature, compact[: -len(parts[2]) - 1].encode()


def _judge_header(data: bytes) -> tuple[str, str]:
    """Return alg and kid. A header has no members but alg, typ and kid: crit, cty, b64, jwk,
    jku, x5c and x5u would each change how the token is to be read, or with what key (RFC 7515
    §4.1, RFC 7797, RFC 8725 §3.10).
    """
    try:
        members = decode_object(data)
    except ValueError as e:
        raise VerifyError("token_malformed", "the token's header cannot be read") from e
    texts = {}
    for name in ("alg", "typ", "kid"):
        texts[name] = members.pop(name, "")
        if type(texts[name]) is not str:
            raise VerifyError("token_malformed", f"the token's {name} is not a string")
    if texts["kid"]:
        try:
            check_key_id(texts["kid"])
        except ValueError as e:
            raise VerifyError("token_malformed", "the token's kid is not a key's id") from e
    for name in sorted(members):
        detail = f"the token's header has the member {json.dumps(name[:32])}, which an access token does not have"
        raise VerifyError("token_malformed", detail)
    # An ID token or a logout token signed with the same key is never taken for an access token
    # (RFC 9068 §4, RFC 8725 §3.11). Media types have no case (RFC 7515 §4.1.9).
    if texts["typ"].lower() not in ("at+jwt", "application/at+jwt"):
        raise VerifyError("token_type")
    return texts["alg"], texts["kid"]


def _read(kid: str, payload: bytes) -> Token:
    """Read the claims. Each required one (RFC 9068 §2.2) is there, and each is of its type."""
    try:
        claims = decode_object(payload)
    except ValueError as e:
        raise VerifyError("token_malformed", "the token's claims cannot be read") from e
    issued_at = _date(claims, "iat", True)
    if "iat_exact" in claims:
        issued_at = _date(claims, "iat_exact", True)
    expires_at = _date(claims, "exp", True)
    assert issued_at is not None and expires_at is not None
    return Token(
        key_id=kid,
        issuer=_text(claims, "iss", True),
        subject=_text(claims, "sub", True),
        audience=_audience(claims),
        id=_text(claims, "jti", True),
        session_id=_text(claims, "sid", False),
        epoch=_count(claims, "epoch"),
        expires_at=expires_at,
        issued_at=issued_at,
        not_before=_date(claims, "nbf", False),
        auth_time=_date(claims, "auth_time", False),
        amr=_texts(claims, "amr"),
        acr=_text(claims, "acr", False),
        scope=_scope(claims),
        payload=payload.decode(),
        _claims=claims,
    )


def _missing(name: str) -> VerifyError:
    return VerifyError("token_claim_missing", f"the token lacks the claim {name}")


def _wrong(name: str, what: str) -> VerifyError:
    return VerifyError("token_malformed", f"the token's {name} is not {what}")


def _text(claims: dict[str, Any], name: str, required: bool) -> str:
    if name not in claims:
        if required:
            raise _missing(name)
        return ""
    value = claims[name]
    if type(value) is not str or not value:
        raise _wrong(name, "a string with something in it")
    return value


def _texts(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    values = claims.get(name, [])
    if type(values) is not list or any(type(one) is not str or not one for one in values):
        raise _wrong(name, "an array of strings")
    return tuple(values)


def _scope(claims: dict[str, Any]) -> tuple[str, ...]:
    """Read scope: scopes with one space between two of them (RFC 8693 §4.2)."""
    if "scope" not in claims:
        return ()
    value = claims["scope"]
    scopes = value.split(" ") if type(value) is str else [""]
    if not all(map(is_scope, scopes)):
        raise _wrong("scope", "a string of scopes with one space between two of them")
    return tuple(scopes)


def is_scope(text: str) -> bool:
    """Report whether a text can be a scope: printable ASCII without the space, the quotation mark and the
    backslash, one character at least (RFC 6749 §3.3).
    """
    return bool(text) and all("!" <= c <= "~" and c not in '"\\' for c in text)


def _audience(claims: dict[str, Any]) -> tuple[str, ...]:
    """Read aud: one string or an array of them (RFC 7519 §4.1.3)."""
    if "aud" not in claims:
        raise _missing("aud")
    values = claims["aud"]
    if type(values) is not list:
        values = [values]
    if any(type(one) is not str or not one for one in values):
        raise _wrong("aud", "a string or an array of strings")
    return tuple(values)


def _count(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name, 0)
    if type(value) is not int or not 0 <= value <= _MAX_INT64:
        raise _wrong(name, "a whole number")
    return value


def _date(claims: dict[str, Any], name: str, required: bool) -> float | None:
    """Read a NumericDate: seconds since 1970, perhaps with a fraction (RFC 7519 §2)."""
    if name not in claims:
        if required:
            raise _missing(name)
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value <= _LAST_SECOND:
        raise _wrong(name, "a number of seconds since 1970")
    return float(value)


def _rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
