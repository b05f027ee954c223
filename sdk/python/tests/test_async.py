"""A verifier of asyncio never blocks the loop."""

from __future__ import annotations

import asyncio
import threading

import pytest
from issuer import Handler, Issuer

from watchword_verify import AsyncVerifier, VerifyError, claim


async def code(verifier: AsyncVerifier, token: str) -> str:
    try:
        await verifier.verify(token, claim("ship", "acc"))
    except VerifyError as e:
        return e.code
    return ""


def test_a_token_and_its_revocation(issuer: Issuer) -> None:
    async def run() -> None:
        async with AsyncVerifier(issuer.url, max_staleness=60) as verifier:
            token = issuer.token()
            assert await code(verifier, token) == ""
            assert await code(verifier, issuer.token(ship="other")) == "forbidden"
            issuer.revoke("sid", "session-1")
            while await code(verifier, token) != "token_revoked":
                await asyncio.sleep(0.005)
            assert verifier.status().revocations == 1

    asyncio.run(asyncio.wait_for(run(), 30))
    assert not [t for t in threading.enumerate() if t.name.startswith("watchword-")]


def test_the_loop_goes_on_while_calls_wait(issuer: Issuer) -> None:
    """Many wait for the first answers, one of them is cancelled, and the loop has time for others."""
    go = threading.Event()

    def slow(handler: Handler) -> None:
        go.wait(30)
        handler.answer("application/json", issuer.key_set())

    issuer.faults["keys"] = slow

    async def run() -> None:
        async with AsyncVerifier(issuer.url, max_staleness=60) as verifier:
            calls = [asyncio.create_task(code(verifier, issuer.token())) for _ in range(10)]
            ticks = 0
            while "keys" not in issuer.requests or ticks < 20:
                await asyncio.sleep(0.001)
                ticks += 1
            assert not any(call.done() for call in calls)
            calls[0].cancel()
            await asyncio.sleep(0)
            go.set()
            assert await asyncio.gather(*calls[1:]) == [""] * 9
            with pytest.raises(asyncio.CancelledError):
                await calls[0]

    asyncio.run(asyncio.wait_for(run(), 30))


def test_close_wakes_those_who_wait(issuer: Issuer) -> None:
    def silent(handler: Handler) -> None:
        with issuer.changed:
            issuer.changed.wait_for(lambda: issuer.ended, 30)

    issuer.faults["keys"] = silent

    async def run() -> None:
        verifier = AsyncVerifier(issuer.url, max_staleness=60)
        call = asyncio.create_task(code(verifier, issuer.token()))
        await asyncio.sleep(0)
        await asyncio.to_thread(issuer.wait_for_request, "keys")
        await verifier.close()
        assert await call == "key_set_unavailable"

    asyncio.run(asyncio.wait_for(run(), 30))


def test_two_loops_wait_for_one_verifier(issuer: Issuer) -> None:
    go = threading.Event()

    def slow(handler: Handler) -> None:
        go.wait(30)
        handler.answer("application/json", issuer.key_set())

    issuer.faults["keys"] = slow
    verifier, results = AsyncVerifier(issuer.url, max_staleness=60), list[str]()
    threads = [
        threading.Thread(target=lambda: results.append(asyncio.run(code(verifier, issuer.token())))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    issuer.wait_for_request("keys")
    go.set()
    for thread in threads:
        thread.join()
    asyncio.run(verifier.close())
    assert results == ["", ""]


def test_a_loop_that_ends_before_the_event(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """What a caller gave up does not disturb others, nor the background."""
    go = threading.Event()

    def slow(handler: Handler) -> None:
        go.wait(30)
        handler.answer("application/json", issuer.key_set())

    issuer.faults["keys"] = slow
    verifier = AsyncVerifier(issuer.url, max_staleness=60)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(code(verifier, issuer.token()), 0.05))
    assert not verifier._keys.tried.done()
    go.set()
    assert asyncio.run(code(verifier, issuer.token())) == ""
    asyncio.run(verifier.close())
    assert not [record for record in caplog.records if record.name != "asyncio"]
