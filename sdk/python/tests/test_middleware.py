"""WSGI, ASGI, and the examples for Django and FastAPI."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, get_type_hints
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from issuer import Issuer

from watchword_verify import AsyncVerifier, Verifier, acr, asgi, claim, fresh_auth, metadata_path, scope, that, wsgi

Answer = tuple[int, dict[str, str], bytes]


def call_wsgi(app: Any, authorization: str | None = None, path: str = "/", method: str = "GET") -> Answer:
    environ: dict[str, Any] = {"SCRIPT_NAME": "", "PATH_INFO": path, "REQUEST_METHOD": method}
    setup_testing_defaults(environ)
    environ["QUERY_STRING"] = ""
    if authorization is not None:
        environ["HTTP_AUTHORIZATION"] = authorization
    seen: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: object = None) -> Callable[[bytes], None]:
        seen[:] = [int(status.split()[0]), dict(headers)]
        return lambda data: None

    body: Iterable[bytes] = validator(app)(environ, start_response)
    data = b"".join(body)
    body.close()  # type: ignore[attr-defined]
    return seen[0], seen[1], data


async def call_asgi(
    app: Any, *authorization: str, path: str = "/", method: str = "GET", kind: str = "http", **more: Any
) -> tuple[list[MutableMapping[str, Any]], Answer]:
    headers = [(b"authorization", one.encode("latin-1")) for one in authorization]
    scope = {
        "type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http", "path": path,
        "raw_path": path.encode(), "query_string": b"", "root_path": "", "headers": headers, "server": ("test", 80), **more,
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start = sent[0]
    fields = {name.decode(): value.decode() for name, value in start.get("headers", [])}
    return sent, (start.get("status", 0), fields, b"".join(m.get("body", b"") for m in sent[1:]))


def app_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ[wsgi.TOKEN].subject.encode()]


async def app_asgi(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
    if scope["type"] == "lifespan":
        await send({"type": "lifespan.startup.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope[asgi.TOKEN].subject.encode()})


def same(answer: Answer, status: int, code: str, challenge: str | None) -> None:
    """Check a refusal."""
    headers = {name.lower(): value for name, value in answer[1].items()}
    assert (answer[0], headers.get("www-authenticate")) == (status, challenge)
    assert headers["content-type"] == "application/problem+json"
    assert headers["cache-control"] == "no-store"
    assert int(headers["content-length"]) == len(answer[2])
    assert json.loads(answer[2])["code"] == code


RESOURCE = "https://ships.example/api"


def test_a_path_beyond_ascii(issuer: Issuer) -> None:
    resource = "https://ships.example/h%C3%A4fen"
    path = metadata_path(resource)
    assert path.endswith("/h%C3%A4fen")
    with Verifier(issuer.url, max_staleness=60, resource=resource) as verifier:
        served = wsgi.Metadata(wsgi.Require(app_wsgi, verifier), verifier)
        asked = path.replace("%C3%A4", "ä").encode().decode("latin-1")
        assert json.loads(call_wsgi(served, path=asked)[2])["resource"] == resource

    async def run() -> None:
        async with AsyncVerifier(issuer.url, max_staleness=60, resource=resource) as verifier:
            served = asgi.Metadata(asgi.Require(app_asgi, verifier), verifier)
            sent, answer = await call_asgi(served, path=path.replace("%C3%A4", "ä"))
            assert json.loads(answer[2])["resource"] == resource

    asyncio.run(run())


def test_wsgi(issuer: Issuer) -> None:
    realm = f'Bearer realm="{issuer.url}"'
    metadata = 'resource_metadata="https://ships.example/.well-known/oauth-protected-resource/api"'
    with Verifier(issuer.url, max_staleness=60, resource=RESOURCE, resource_name="Ships", scopes_supported=["read"]) as verifier:
        app = wsgi.Require(app_wsgi, verifier, claim("ship", "acc"))
        good = f"Bearer {issuer.token()}"
        assert call_wsgi(app, good)[::2] == (200, b"user-1")
        assert call_wsgi(app, good.replace("Bearer", "bEARER"))[0] == 200
        same(call_wsgi(app), 401, "token_missing", f"{realm}, {metadata}")
        same(call_wsgi(app, "Basic dTpw,Bearer x"), 401, "token_missing", f"{realm}, {metadata}")
        invalid = f'{realm}, error="invalid_token", error_description="token_malformed", {metadata}'
        same(call_wsgi(app, "Bearer x.y"), 401, "token_malformed", invalid)
        several = f'{realm}, error="invalid_request", error_description="invalid_request", {metadata}'
        same(call_wsgi(app, f"{good},{good}"), 400, "invalid_request", several)
        forbidden = f'{realm}, error="insufficient_scope", error_description="forbidden"'
        weak = f"Bearer {issuer.token(ship='none')}"
        same(call_wsgi(app, weak), 403, "forbidden", f"{forbidden}, {metadata}")
        scoped = wsgi.Require(app_wsgi, verifier, scope("read", "write"))
        same(call_wsgi(scoped, good), 403, "forbidden", f'{forbidden}, scope="read write", {metadata}')
        again = wsgi.Require(app_wsgi, verifier, fresh_auth(300), acr("aal2"), scope("read"))
        challenge = f'{realm}, error="insufficient_user_authentication", error_description="reauthentication_required"'
        challenge += f', max_age="300", acr_values="aal2", scope="read", {metadata}'
        same(call_wsgi(again, good), 401, "reauthentication_required", challenge)
        served = wsgi.Metadata(app, verifier)
        path = metadata_path(RESOURCE)
        status, headers, body = call_wsgi(served, path=path)
        assert (status, headers["Content-Type"], headers["Cache-Control"]) == (200, "application/json", "public, max-age=300")
        assert json.loads(body) == {
            "resource": RESOURCE, "authorization_servers": [issuer.url], "scopes_supported": ["read"],
            "bearer_methods_supported": ["header"], "resource_name": "Ships",
        }  # fmt: skip
        assert call_wsgi(served, path=path, method="HEAD")[::2] == (200, b"")
        assert call_wsgi(served, path=path, method="POST")[0] == 401
        assert call_wsgi(served)[0] == 401
    status, headers, body = call_wsgi(app, f"Bearer {issuer.token(kid='key-1')}")
    with Verifier("http://127.0.0.1:1") as away:
        status, headers, body = call_wsgi(wsgi.Require(app_wsgi, away), good)
        assert (status, headers["Retry-After"], json.loads(body)["code"]) == (503, "1", "key_set_unavailable")
        assert "WWW-Authenticate" not in headers
        assert call_wsgi(wsgi.Metadata(app, away), path=path)[0] == 401


def test_head_has_no_body(issuer: Issuer) -> None:
    """Not every server of WSGI takes it away, and a client would read it as the next answer."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        status, headers, body = call_wsgi(wsgi.Require(app_wsgi, verifier), method="HEAD")
        assert (status, body) == (401, b"") and int(headers["Content-Length"]) > 0


def test_the_other_verifier(issuer: Issuer) -> None:
    """With the one of the wrong kind no request comes through: a coroutine is no token."""

    async def run(verifier: Verifier) -> None:
        with pytest.raises(TypeError, match="AsyncVerifier"):
            await call_asgi(asgi.Require(app_asgi, verifier), f"Bearer {issuer.token()}")  # type: ignore[arg-type]
        async with AsyncVerifier(issuer.url, max_staleness=60) as other:
            with pytest.raises(TypeError, match="AsyncVerifier"):
                call_wsgi(wsgi.Require(app_wsgi, other), "Bearer x")  # type: ignore[arg-type]

    with Verifier(issuer.url, max_staleness=60) as verifier:
        asyncio.run(run(verifier))


def test_a_function_that_returns_a_coroutine_is_no_requirement(issuer: Issuer) -> None:
    async def never(token: object) -> bool:
        return False

    with Verifier(issuer.url, max_staleness=60) as verifier:
        app = wsgi.Require(app_wsgi, verifier, that("never", never))  # type: ignore[arg-type]
        with pytest.warns(RuntimeWarning, match="never awaited"), pytest.raises(TypeError, match="asynchronous"):
            call_wsgi(app, f"Bearer {issuer.token()}")


def test_types_can_be_read_at_run_time() -> None:
    for one in (wsgi.Require.__init__, wsgi.authenticate, wsgi.Metadata.__call__, asgi.Require.__init__, asgi.authenticate):
        assert get_type_hints(one)


def test_asgi(issuer: Issuer) -> None:
    async def run() -> None:
        realm = f'Bearer realm="{issuer.url}"'
        async with AsyncVerifier(issuer.url, max_staleness=60, resource="https://ships.example") as verifier:
            app = asgi.Require(app_asgi, verifier, claim("ship", "acc"))
            good = f"Bearer {issuer.token()}"
            metadata = 'resource_metadata="https://ships.example/.well-known/oauth-protected-resource"'
            assert (await call_asgi(app, good))[1][::2] == (200, b"user-1")
            same((await call_asgi(app))[1], 401, "token_missing", f"{realm}, {metadata}")
            several = f'{realm}, error="invalid_request", error_description="invalid_request", {metadata}'
            same((await call_asgi(app, good, good))[1], 400, "invalid_request", several)
            served = asgi.Metadata(app, verifier)
            path = "/.well-known/oauth-protected-resource"
            assert json.loads((await call_asgi(served, path=path))[1][2])["resource"] == "https://ships.example"
            assert (await call_asgi(served, path=path, method="HEAD"))[1][::2] == (200, b"")
            assert (await call_asgi(served, path="/other"))[1][0] == 401
            assert (await call_asgi(served, path=path, kind="websocket"))[0][0]["type"] == "websocket.close"
            sent, answer = await call_asgi(app, kind="websocket", extensions={"websocket.http.response": None})
            assert (sent[0]["type"], sent[1]["type"]) == (
                "websocket.http.response.start", "websocket.http.response.body",
            )  # fmt: skip
            same(answer, 401, "token_missing", f"{realm}, {metadata}")
            assert (await call_asgi(app, kind="websocket", extensions=None))[0][0]["type"] == "websocket.close"
            assert (await call_asgi(app, good, kind="websocket"))[1][0] == 200
            with pytest.raises(KeyError):  # what may come one day: it is not let through
                await app({"type": "other"}, None, None)  # type: ignore[arg-type]
            assert (await call_asgi(app, kind="lifespan"))[0][0]["type"] == "lifespan.startup.complete"

    asyncio.run(run())


def test_fastapi(issuer: Issuer) -> None:
    import fastapi_example

    async def run() -> None:
        app = fastapi_example.make(issuer.url, max_staleness=60)
        async with app.router.lifespan_context(app):
            good = f"Bearer {issuer.token(scope='orders:read orders:write')}"
            for path in ("/ship", "/orders"):
                assert json.loads((await call_asgi(app, good, path=path))[1][2]) == {"user": "user-1"}
            realm = f'Bearer realm="{issuer.url}"'
            same((await call_asgi(app, path="/ship"))[1], 401, "token_missing", realm)
            forbidden = f'{realm}, error="insufficient_scope", error_description="forbidden"'
            other = f"Bearer {issuer.token(ship='none')}"
            same((await call_asgi(app, other, path="/ship"))[1], 403, "forbidden", forbidden)
            forbidden += ', scope="orders:read"'
            same((await call_asgi(app, other, path="/orders"))[1], 403, "forbidden", forbidden)

    asyncio.run(run())


def test_django(issuer: Issuer) -> None:
    import django
    from django.conf import settings
    from django.core.handlers.wsgi import WSGIHandler
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    settings.configure(
        WATCHWORD_ISSUER=issuer.url, WATCHWORD_OPTIONS={"max_staleness": 60}, ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="of the test", MIDDLEWARE=[],
    )  # fmt: skip
    django.setup()
    from django_example import requires, verifier

    @requires(claim("ship", "acc"))
    def ship(request: HttpRequest, number: int) -> HttpResponse:
        return HttpResponse(f"{getattr(request, 'token').subject} {number}")

    @requires(claim("ship", "acc"))
    async def later(request: HttpRequest) -> HttpResponse:
        return HttpResponse(getattr(request, "token").subject)

    global urlpatterns
    urlpatterns = [path("ship/<int:number>", ship), path("later", later)]
    app = WSGIHandler()
    try:
        assert call_wsgi(app, f"Bearer {issuer.token()}", "/ship/7")[::2] == (200, b"user-1 7")
        realm = f'Bearer realm="{issuer.url}"'
        same(call_wsgi(app, None, "/ship/7"), 401, "token_missing", realm)
        forbidden = f'{realm}, error="insufficient_scope", error_description="forbidden"'
        same(call_wsgi(app, f"Bearer {issuer.token(ship='none')}", "/ship/7"), 403, "forbidden", forbidden)
        assert call_wsgi(app, f"Bearer {issuer.token()}", "/later")[::2] == (200, b"user-1")
        same(call_wsgi(app, None, "/later"), 401, "token_missing", realm)
    finally:
        verifier().close()


urlpatterns: list[Any] = []
