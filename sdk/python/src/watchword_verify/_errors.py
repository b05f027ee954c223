"""The errors of a verifier. Codes and details are those of Watchword's Go package verify."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

_DETAILS = {
    "token_missing": "send an access token: Authorization: Bearer <token>",
    "invalid_request": "the request has several Authorization headers",
    "token_malformed": "this is not a well-formed access token",
    "token_type": "this is a token of another kind, not an access token",
    "token_algorithm": "the token's signature algorithm is not accepted",
    "token_key_unknown": "the key that the token names is not known",
    "token_signature": "the token's signature is wrong",
    "token_claim_missing": "the token lacks a required claim",
    "token_issuer": "the token comes from another issuer",
    "token_audience": "the token is meant for another audience",
    "token_expired": "the token has expired",
    "token_not_yet_valid": "the token is not valid yet",
    "token_revoked": "this token has been revoked",
    "revocation_stale": "it is not known at the moment which tokens have been revoked",
    "key_set_unavailable": "the key that the token names cannot be looked up at the moment",
    "forbidden": "the token does not give the right to this request",
    "reauthentication_required": "the user has to authenticate again, or by another method",
}

_STATUS = {
    "invalid_request": 400,
    "forbidden": 403,
    "revocation_stale": 503,
    "key_set_unavailable": 503,
}


@dataclass(frozen=True, slots=True)
class Reauthentication:
    """How a user has to authenticate (RFC 9470 §3)."""

    max_age: int = 0
    """How long ago it may be, in seconds; 0: that does not matter."""
    acr_values: tuple[str, ...] = ()
    """Those of which the token's acr must be one, the preferred one first; empty: it does
    not matter, or there is none that would do."""
    scope: tuple[str, ...] = ()
    """All scopes that the request needs, if the token lacks one of them."""

    def both(self, other: Reauthentication) -> Reauthentication:
        """Return what meets this and the other."""
        ages = [age for age in (self.max_age, other.max_age) if age > 0]
        if self.acr_values and other.acr_values:
            values = tuple(value for value in self.acr_values if value in other.acr_values)
        else:
            values = self.acr_values or other.acr_values
        return Reauthentication(min(ages, default=0), values, tuple(dict.fromkeys(self.scope + other.scope)))


class VerifyError(Exception):
    """A token is not accepted.

    With the codes ``revocation_stale`` and ``key_set_unavailable`` nothing is said about the
    token. ``forbidden`` says that the token is good and does not meet a requirement, and
    ``reauthentication_required`` that it would meet all of them if its user authenticated
    again. With every other code the token is not good. What caused the error, if anything,
    is its ``__cause__``. Nothing of it ever holds the token.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        again: Reauthentication | None = None,
        scope: tuple[str, ...] = (),
    ) -> None:
        self.code = code
        """Stable and in snake_case, for programs."""
        self.detail = detail or _DETAILS[code]
        """One sentence for people."""
        self.status = _STATUS.get(code, 401)
        """The status of the HTTP answer."""
        self.again = again
        """With ``reauthentication_required``: how the user has to authenticate."""
        self.scope = scope
        """With ``forbidden``: all scopes that the request needs, if scopes are all that the token lacks."""
        super().__init__(f"{code}: {self.detail}")

    def __reduce__(self) -> tuple[Callable[..., VerifyError], tuple[str, str]]:
        """Tell pickle how to make it again in another process."""
        return partial(VerifyError, again=self.again, scope=self.scope), (self.code, self.detail)
