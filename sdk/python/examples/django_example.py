"""Django: a decorator for views, whose requests need a token.

    from django_example import requires

    @requires(claim("ship", "acc"))
    def ship(request): ...

Views may be asynchronous. The verifier is made when it is first needed, with the settings WATCHWORD_ISSUER and
WATCHWORD_OPTIONS. It is good for all views, and over the forks of a server.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, TypeVar, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase

from watchword_verify import OnStale, Requirement, Token, Verifier, VerifyError
from watchword_verify.wsgi import authenticate

View = TypeVar("View", bound=Callable[Concatenate[HttpRequest, ...], HttpResponseBase | Awaitable[HttpResponseBase]])


@functools.cache
def verifier() -> Verifier:
    return Verifier(settings.WATCHWORD_ISSUER, **getattr(settings, "WATCHWORD_OPTIONS", {}))


def requires(
    *required: Requirement, max_staleness: float | None = None, on_stale: OnStale | None = None
) -> Callable[[View], View]:
    """Let a request through to the view only with a good token that meets every requirement: request.token."""

    def refuse(request: HttpRequest) -> HttpResponse | None:
        try:
            token: Token = authenticate(
                request.META, verifier(), *required, max_staleness=max_staleness, on_stale=on_stale
            )
        except VerifyError as e:
            answer = verifier().refusal(e)
            return HttpResponse(answer.body, status=answer.status, headers=dict(answer.headers))
        setattr(request, "token", token)
        return None

    def decorate(view: View) -> View:
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                refused = await asyncio.to_thread(refuse, request)  # it may wait for the first answers
                return refused or await view(request, *args, **kwargs)

            return cast(View, guarded_async)

        @functools.wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            return refuse(request) or view(request, *args, **kwargs)

        return cast(View, guarded)

    return decorate
