"""Watchword's access tokens, for resource servers in Python.

    from watchword_verify import Verifier, claim

    verifier = Verifier("https://auth.example.com")
    token = verifier.verify(text, claim("ship", "acc"))

A verifier checks tokens in memory: signature, issuer, audience, times, and whether the token was revoked. In the
background it keeps the key set fresh and follows the feed of revocations, so that what was revoked is refused in well
under a second. While it does not know what was revoked, it refuses (503).

The modules wsgi and asgi have middleware.
"""

from ._answers import Answer, Resource, metadata_path
from ._clock import Clock, Moment, system_clock
from ._errors import Reauthentication, VerifyError
from ._feed import OnStale
from ._token import Token, bearer
from ._verifier import (
    DEFAULT_CACHE_SIZE,
    DEFAULT_MAX_STALENESS,
    MAX_LEEWAY,
    AsyncVerifier,
    Status,
    Verifier,
)
from .requirements import Requirement, acr, all_of, amr, any_of, claim, fresh_auth, scope, that

__all__ = [
    "DEFAULT_CACHE_SIZE",
    "DEFAULT_MAX_STALENESS",
    "MAX_LEEWAY",
    "Answer",
    "AsyncVerifier",
    "Clock",
    "Moment",
    "OnStale",
    "Reauthentication",
    "Requirement",
    "Resource",
    "Status",
    "Token",
    "Verifier",
    "VerifyError",
    "acr",
    "all_of",
    "amr",
    "any_of",
    "bearer",
    "claim",
    "fresh_auth",
    "metadata_path",
    "scope",
    "system_clock",
    "that",
]
