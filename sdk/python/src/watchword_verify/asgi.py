"""Middleware for ASGI.

    app = Require(app, verifier, claim("ship", "acc"))

The application finds the token in ``scope["watchword.token"]``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from ._answers import Answer
from ._errors import VerifyError
from ._feed import OnStale
from ._token import Token, bearer
from ._verifier import AsyncVerifier
from .requirements import Requirement

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TOKEN = "watchword.token"
"""The key of the scope under which Require leaves the token."""


class Require:
    """Lets a request, or a WebSocket, through to the application only with a good token that meets every requirement.
    All others are answered: 401, 403, 400 for several tokens, or 503 if it is not known whether the token is good.
    """

    def __init__(
        self,
        app: App,
        verifier: AsyncVerifier,
        *required: Requirement,
        max_staleness: float | None = None,
        on_stale: OnStale | None = None,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._required = required
        self._max_staleness = max_staleness
        self._on_stale = on_stale

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            token = await authenticate(
                scope,
                self._verifier,
                *self._required,
                max_staleness=self._max_staleness,
                on_stale=self._on_stale,
            )
        except VerifyError as e:
            await _respond(self._verifier.refusal(e), scope, send)
            return
        await self._app({**scope, TOKEN: token}, receive, send)


class Metadata:
    """Answers requests for the metadata of the verifier's resource (RFC 9728 §3), and lets all others through."""

    def __init__(self, app: App, verifier: AsyncVerifier) -> None:
        self._app = app
        self._metadata = verifier.metadata

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        wanted = self._metadata is not None and scope["type"] == "http" and scope["path"] == unquote(self._metadata.path)
        if self._metadata is None or not wanted or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        await _respond(self._metadata.answer, scope, send)


async def authenticate(
    scope: Scope,
    verifier: AsyncVerifier,
    *required: Requirement,
    max_staleness: float | None = None,
    on_stale: OnStale | None = None,
) -> Token:
    """Return the token of a request, or raise VerifyError, for applications that are not wrapped by Require."""
    if not isinstance(verifier, AsyncVerifier):  # a Verifier blocks the event loop
        raise TypeError(f"ASGI needs an AsyncVerifier, not {type(verifier).__name__}")
    text = bearer(authorization(scope))
    return await verifier.verify(text, *required, max_staleness=max_staleness, on_stale=on_stale)


def authorization(scope: Scope) -> list[str]:
    """Return the values of a request's Authorization headers."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name.lower() == b"authorization"]


async def _respond(answer: Answer, scope: Scope, send: Send) -> None:
    headers = [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in answer.headers]
    kind = "http.response"
    if scope["type"] == "websocket":
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: the server answers 403
            return
        kind = "websocket.http.response"
    body = b"" if scope.get("method") == "HEAD" else answer.body
    await send({"type": f"{kind}.start", "status": answer.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
