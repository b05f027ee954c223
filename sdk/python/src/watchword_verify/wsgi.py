"""Middleware for WSGI (PEP 3333).

    app = Require(app, verifier, claim("ship", "acc"))

The application finds the token in ``environ["watchword.token"]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import unquote
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from ._answers import Answer
from ._errors import VerifyError
from ._feed import OnStale
from ._token import Token, bearer
from ._verifier import Verifier
from .requirements import Requirement

TOKEN = "watchword.token"
"""The key of the environment under which Require leaves the token."""


class Require:
    """Lets a request through to the application only with a good token that meets every requirement. All others are
    answered: 401, 403, 400 for several tokens, or 503 if it is not known whether the token is good.
    """

    def __init__(
        self,
        app: WSGIApplication,
        verifier: Verifier,
        *required: Requirement,
        max_staleness: float | None = None,
        on_stale: OnStale | None = None,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._required = required
        self._max_staleness = max_staleness
        self._on_stale = on_stale

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            environ[TOKEN] = authenticate(
                environ,
                self._verifier,
                *self._required,
                max_staleness=self._max_staleness,
                on_stale=self._on_stale,
            )
        except VerifyError as e:
            return _respond(self._verifier.refusal(e), environ, start_response)
        return self._app(environ, start_response)


class Metadata:
    """Answers requests for the metadata of the verifier's resource (RFC 9728 §3), and lets all others through."""

    def __init__(self, app: WSGIApplication, verifier: Verifier) -> None:
        self._app = app
        self._metadata = verifier.metadata

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        path = path.encode("latin-1").decode("utf-8", "replace")  # PEP 3333 has bytes as characters
        wanted = self._metadata is not None and path == unquote(self._metadata.path)
        if self._metadata is None or not wanted or environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return self._app(environ, start_response)
        return _respond(self._metadata.answer, environ, start_response)


def authenticate(
    environ: WSGIEnvironment,
    verifier: Verifier,
    *required: Requirement,
    max_staleness: float | None = None,
    on_stale: OnStale | None = None,
) -> Token:
    """Return the token of a request, or raise VerifyError, for applications that are not wrapped by Require."""
    if not isinstance(verifier, Verifier):  # what an AsyncVerifier returns is no token, and would pass for one
        raise TypeError(f"WSGI needs a Verifier, not {type(verifier).__name__}")
    text = bearer(authorization(environ))
    return verifier.verify(text, *required, max_staleness=max_staleness, on_stale=on_stale)


def authorization(environ: WSGIEnvironment) -> list[str]:
    """Return the values of a request's Authorization headers. WSGI servers join several with commas, which no bearer
    token contains.
    """
    value: str | None = environ.get("HTTP_AUTHORIZATION")
    if value is None:
        return []
    return value.split(",") if value.lstrip(" \t")[:6].lower() == "bearer" else [value]


def _respond(answer: Answer, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    start_response(f"{answer.status} {answer.reason}", list(answer.headers))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]
