"""FastAPI: a dependency for routes, whose requests need a token.

    app = make("https://auth.example.com")
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response

from watchword_verify import AsyncVerifier, OnStale, Requirement, Token, VerifyError, claim, scope
from watchword_verify.asgi import authenticate


def needs(
    *required: Requirement, max_staleness: float | None = None, on_stale: OnStale | None = None
) -> Callable[[Request], Awaitable[Token]]:
    """Make a dependency: a good token that meets every requirement."""

    async def token(request: Request) -> Token:
        verifier: AsyncVerifier = request.app.state.verifier
        return await authenticate(
            request.scope, verifier, *required, max_staleness=max_staleness, on_stale=on_stale
        )

    return token


async def refuse(request: Request, error: Exception) -> Response:
    """Answer a request whose token is not accepted."""
    assert isinstance(error, VerifyError)
    answer = request.app.state.verifier.refusal(error)
    return Response(answer.body, answer.status, dict(answer.headers))


def make(issuer: str, **options: Any) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncVerifier(issuer, **options) as app.state.verifier:
            yield

    app = FastAPI(lifespan=lifespan, exception_handlers={VerifyError: refuse})

    @app.get("/ship")
    async def ship(token: Annotated[Token, Depends(needs(claim("ship", "acc")))]) -> dict[str, str]:
        return {"user": token.subject}

    @app.get("/orders")
    async def orders(token: Annotated[Token, Depends(needs(scope("orders:read")))]) -> dict[str, str]:
        return {"user": token.subject}

    return app
