"""A verifier over a network: what it learns, and what it does when it learns nothing."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from issuer import Handler, Issuer, until

from watchword_verify import Moment, Reauthentication, Verifier, VerifyError, _verifier, claim, scope, system_clock
from watchword_verify._wait import Event


class ShiftedClock:
    """The clocks of the machine, and as much later as a test says."""

    def __init__(self) -> None:
        self.mono = 0.0
        self.wall = 0.0

    def __call__(self) -> Moment:
        now = system_clock()
        return Moment(now.mono + self.mono, now.wall + self.wall)

    def on(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds


def code(verifier: Verifier, token: str) -> str:
    """Return the code of the refusal, or nothing."""
    try:
        verifier.verify(token)
    except VerifyError as e:
        return e.code
    return ""


def test_a_token_and_its_revocation(issuer: Issuer) -> None:
    with Verifier(issuer.url, max_staleness=60) as verifier:
        tokens = [issuer.token(sid=f"session-{i}", sub=f"user-{i}", epoch=1) for i in range(5)]
        token = verifier.verify(tokens[0], claim("ship", "acc"))
        assert (token.subject, token.id, token.audience) == ("user-0", "token-1", (issuer.url,))
        with pytest.raises(VerifyError) as error:
            verifier.verify(tokens[0], claim("ship", "acc"), scope("read"))
        assert (error.value.code, error.value.status, error.value.scope) == ("forbidden", 403, ("read",))
        assert all(code(verifier, one) == "" for one in tokens)
        issuer.wait_for_request("streaming")
        issuer.revoke("jti", "token-1")
        issuer.revoke("sid", "session-1")
        issuer.revoke("user", "user-2", epoch=2)
        issuer.revoke("user", "user-3", issued_before=int(time.time()) - 60)
        until(lambda: verifier.status().revocations == 4)
        assert [code(verifier, one) for one in tokens] == ["token_revoked"] * 3 + ["", ""]
        issuer.revoke("kid", "key-1")
        until(lambda: code(verifier, tokens[4]) == "token_revoked")
        status = verifier.status()
        assert (status.keys, status.revocations, status.fresh) == (1, 5, True)
        assert status.confirmed_age is not None and status.confirmed_age < 60
    assert set(issuer.paths) == {
        "/.well-known/jwks.json", "/api/revocations?version=1&after=0&limit=10000", "/api/revocations?version=1",
    }  # fmt: skip
    assert sorted(issuer.requests) == ["keys", "pages", "stream", "streaming"]


def test_claims_are_a_copy(issuer: Issuer) -> None:
    with Verifier(issuer.url, max_staleness=60) as verifier:
        text = issuer.token(list=[{"a": 1}])
        verifier.verify(text).claims["list"][0]["a"] = 2
        verifier.verify(text).claims["ship"] = "other"
        assert verifier.verify(text, claim("ship", "acc")).claims["list"] == [{"a": 1}]


def test_a_new_key_is_fetched_once(issuer: Issuer) -> None:
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, max_staleness=60) as verifier:
        assert code(verifier, issuer.token()) == ""
        issuer.add_key("key-2")
        clock.on(6)
        tokens = [issuer.token("key-2") for _ in range(20)]
        with ThreadPoolExecutor(20) as pool:
            assert set(pool.map(lambda token: code(verifier, token), tokens)) == {""}
        assert issuer.requests.count("keys") == 2


def test_ten_thousand_random_kids(issuer: Issuer) -> None:
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good = issuer.token()
        assert code(verifier, good) == ""
        issuer.keys["stranger"] = issuer.keys["key-1"]
        unknown = issuer.token("stranger")
        header = unknown.split(".", 1)[0]
        del issuer.keys["stranger"]
        from watchword_verify._strict import decode_base64, encode_base64

        text = decode_base64(header).decode()
        for number in range(10_000):
            forged = encode_base64(text.replace("stranger", f"random-{number}").encode())
            assert code(verifier, f"{forged}.{unknown.split('.', 1)[1]}") == "key_set_unavailable"
        assert code(verifier, good) == ""
        assert issuer.requests.count("keys") <= 3
        assert len(verifier._keys._unknown) <= 1024


@pytest.mark.parametrize("status, body", [(500, b"{}"), (200, b"<html>"), (200, b'{"keys":[]}'), (302, b"")])
def test_a_key_set_that_is_of_no_use(
    issuer: Issuer, status: int, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good set is used for 24 hours, and never longer."""
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, without_revocations=True) as verifier:
        token = issuer.token(exp=int(time.time()) + 100 * 3600)
        assert code(verifier, token) == ""
        issuer.faults["keys"] = lambda handler: handler.answer(
            "application/json", body, status, Location=f"{issuer.url}/elsewhere"
        )
        clock.on(6)
        issuer.add_key("key-2")
        assert code(verifier, issuer.token("key-2")) == "key_set_unavailable"
        assert code(verifier, token) == ""
        clock.on(24 * 3600 - 60)
        assert code(verifier, token) == ""
        clock.on(60)
        assert code(verifier, token) == "key_set_unavailable"
        assert verifier.status().keys == 0
        assert "/elsewhere" not in issuer.paths
        until(lambda: any("out of reach" in r.message for r in caplog.records))
        assert [r.levelno for r in caplog.records if "out of reach" in r.message] == [logging.WARNING]
        issuer.faults.clear()
        verifier._keys.wake.set()
        until(lambda: code(verifier, token) == "")


def test_stale(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, max_staleness=60) as verifier:
        token, revoked = issuer.token(), issuer.token()
        assert code(verifier, token) == ""
        issuer.wait_for_request("streaming")
        issuer.revoke("jti", "token-2")
        until(lambda: code(verifier, revoked) == "token_revoked")
        for what in ("pages", "stream"):
            issuer.faults[what] = lambda handler: handler.answer("application/json", b"", 503)
        issuer.cut_streams()
        issuer.wait_for_request("pages", 3)
        assert code(verifier, token) == ""
        clock.on(60)
        assert code(verifier, token) == "revocation_stale"
        assert code(verifier, token) == "revocation_stale"
        assert code(verifier, revoked) == "token_revoked"
        assert verifier.verify(token, on_stale="accept")
        assert verifier.verify(token, max_staleness=600)
        assert not verifier.status().fresh
        assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1
        issuer.faults.clear()
        until(lambda: code(verifier, token) == "")
        assert code(verifier, revoked) == "token_revoked"


def test_a_route_that_wants_the_present(issuer: Issuer) -> None:
    """0 is the strictest bound, and not the verifier's."""
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, max_staleness=60) as verifier:
        token = issuer.token()
        assert code(verifier, token) == ""
        clock.on(1)
        with pytest.raises(VerifyError, match="revocation_stale"):
            verifier.verify(token, max_staleness=0)


def test_without_a_global_lock_readers_wait(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A free-threaded interpreter could show a reader the middle of a change."""
    monkeypatch.setattr("sys._is_gil_enabled", lambda: False, raising=False)
    with Verifier(issuer.url, max_staleness=60) as verifier, ThreadPoolExecutor(1) as pool:
        token = issuer.token()
        assert code(verifier, token) == ""
        assert verifier._feed is not None
        with verifier._feed.lock:
            answer = pool.submit(code, verifier, token)
            with pytest.raises(TimeoutError):
                answer.result(0.1)
        assert answer.result(30) == ""


def test_all_waits_of_a_call_have_one_bound(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the keys and then for the feed: the second wait gets what the first one left."""
    go, waits, result = threading.Event(), list[float](), Event.result

    def slow(handler: Handler) -> None:
        go.wait(30)
        handler.answer("application/json", issuer.key_set())

    issuer.faults["keys"] = slow

    def record(event: Event, timeout: float | None = None) -> None:
        waits.append(timeout or 0)
        go.set()
        if len(waits) == 1:
            result(event, timeout)

    issuer.faults["pages"] = lambda handler: time.sleep(1)
    monkeypatch.setattr(Event, "result", record)
    with Verifier(issuer.url, max_staleness=60) as verifier:
        assert code(verifier, issuer.token()) == "revocation_stale"
    assert len(waits) == 2 and waits[1] < waits[0]


def test_errors_travel_between_processes() -> None:
    """A pool of processes is broken by an exception that it cannot make again."""
    again = Reauthentication(300, ("aal2",), ("read",))
    for error in (VerifyError("token_revoked"), VerifyError("forbidden", "no", scope=("a",)), VerifyError("reauthentication_required", again=again)):
        for made in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
            assert type(made) is VerifyError and str(made) == str(error)
            assert vars(made) == vars(error)


def test_accept_needs_a_feed_that_was_read_once(issuer: Issuer) -> None:
    issuer.faults["pages"] = lambda handler: handler.answer("application/json", b"", 503)
    with Verifier(issuer.url, on_stale="accept", max_staleness=60) as verifier:
        assert code(verifier, issuer.token()) == "revocation_stale"
        assert verifier.status().confirmed_age is None
        issuer.faults.clear()
        until(lambda: code(verifier, issuer.token()) == "")


def test_a_machine_that_slept(issuer: Issuer) -> None:
    """The monotonic clock of a machine stands still while it sleeps."""
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, max_staleness=60) as verifier:
        assert code(verifier, issuer.token()) == ""
        for what in ("pages", "stream"):
            issuer.faults[what] = lambda handler: handler.answer("application/json", b"", 503)
        issuer.cut_streams()
        clock.wall += 120
        until(lambda: code(verifier, issuer.token()) == "revocation_stale")


def test_streams_are_cut(issuer: Issuer) -> None:
    """A killed replica, a restarted server, a balancer that ends connections: no entry is lost."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        tokens = [issuer.token() for _ in range(5)]
        assert code(verifier, tokens[0]) == ""
        for number, token in enumerate(tokens, 1):
            issuer.wait_for_request("streaming", number)
            issuer.cut_streams()
            issuer.revoke("jti", f"token-{number}")
            until(lambda token=token: code(verifier, token) == "token_revoked")  # type: ignore[misc]
        assert [code(verifier, token) for token in tokens] == ["token_revoked"] * 5


def test_the_log_is_replaced(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """What was revoked in the former log stays revoked, and all of the new one is read."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        old, new = issuer.token(), issuer.token()
        issuer.revoke("jti", "token-1")
        until(lambda: code(verifier, old) == "token_revoked")
        issuer.wait_for_request("streaming")
        with issuer.changed:
            issuer.log, issuer.entries = "log-2", []
        issuer.revoke("jti", "token-2")
        issuer.cut_streams()
        until(lambda: code(verifier, new) == "token_revoked")
        assert code(verifier, old) == "token_revoked"
        assert any("begins anew" in record.message for record in caplog.records)


def test_pages_when_streams_bring_nothing(issuer: Issuer) -> None:
    def held_back(handler: Handler) -> None:
        handler.begin("text/event-stream")
        with issuer.changed:
            issuer.changed.wait_for(lambda: issuer.ended, 30)

    issuer.faults["stream"] = held_back
    with Verifier(issuer.url, max_staleness=3) as verifier:
        token = issuer.token()
        until(lambda: code(verifier, token) == "")
        issuer.wait_for_request("pages", 3)  # the stream was given up, and a page may be held back
        issuer.revoke("jti", "token-1")
        until(lambda: code(verifier, token) == "token_revoked")
        assert any(path.endswith("&wait=1") for path in issuer.paths)


def test_calls_wait_until_the_first_answers(issuer: Issuer) -> None:
    asked, go = threading.Event(), threading.Event()

    def slow(handler: Handler) -> None:
        asked.set()
        go.wait(30)
        handler.answer("application/json", issuer.page(0))

    issuer.faults["pages"] = slow
    with Verifier(issuer.url, max_staleness=60) as verifier, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(code, verifier, issuer.token())
        assert asked.wait(30)
        assert not answer.done()
        go.set()
        assert answer.result(30) == ""


def test_close_wakes_those_who_wait(issuer: Issuer) -> None:
    def silent(handler: Handler) -> None:
        with issuer.changed:
            issuer.changed.wait_for(lambda: issuer.ended, 30)

    issuer.faults["keys"] = silent
    verifier = Verifier(issuer.url, max_staleness=60)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(code, verifier, issuer.token())
        issuer.wait_for_request("keys")
        verifier.close()
        assert answer.result(30) == "key_set_unavailable"
    assert not [t for t in threading.enumerate() if t.name.startswith("watchword-")]
    assert code(verifier, issuer.token()) == "key_set_unavailable"
    verifier.close()


def test_close_in_a_signal_handler(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have interrupted this thread while it held any lock that close needs."""
    verifier = Verifier(issuer.url, max_staleness=60)
    assert code(verifier, issuer.token()) == ""
    monkeypatch.setattr(_verifier, "_MAX_JOIN", 0.1)  # the thread needs one of them, too
    feed, keys = verifier._followers[1], verifier._keys

    def interrupted() -> None:
        with _verifier._forking, verifier._starting, keys.lock, feed.current._lock:
            verifier.close()

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()


def test_a_verifier_that_nobody_has(issuer: Issuer) -> None:
    """It was never closed, and its threads end all the same."""
    verifier = Verifier(issuer.url, max_staleness=60)
    assert code(verifier, issuer.token()) == ""
    issuer.wait_for_request("streaming")
    del verifier
    gc.collect()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("watchword-")])


def test_a_thread_that_cannot_start(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one does not go on alone."""
    start = threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name == "watchword-feed":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    with pytest.raises(RuntimeError, match="start"):
        Verifier(issuer.url)
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("watchword-")])


def test_nothing_is_there() -> None:
    with Issuer() as issuer:
        token = issuer.token()
    with Verifier(issuer.url, max_staleness=60) as verifier:
        assert code(verifier, token) == "key_set_unavailable"
        assert verifier.status().keys == 0 and not verifier.status().fresh
    with Verifier(issuer.url, secrets=["s" * 64], without_revocations=True) as verifier:
        assert code(verifier, token) == "key_set_unavailable"
        assert verifier.status().fresh


@pytest.mark.parametrize(
    "issuer_url, options, message",
    [
        ("", {}, "issuer"),
        ("auth.example", {}, "not an http or https URL"),
        ('https://auth.example/"', {}, "issuer"),
        ("https://user@auth.example", {}, "not an http or https URL"),
        ("https://auth.example", {"max_staleness": 2.9}, "max_staleness"),
        ("https://auth.example", {"max_staleness": float("nan")}, "max_staleness"),
        ("https://auth.example", {"leeway": 301}, "leeway"),
        ("https://auth.example", {"leeway": -1}, "leeway"),
        ("https://auth.example", {"on_stale": "open"}, "on_stale"),
        ("https://auth.example", {"secrets": "s" * 64}, "list"),
        ("https://auth.example", {"secrets": ["s" * 31]}, "secret 1"),
        ("https://auth.example", {"secrets": ["s" * 32, "s" * 32]}, "twice"),
        ("https://auth.example", {"key_set_url": "file:///etc/passwd"}, "not an http or https URL"),
        ("https://auth.example", {"revocations_url": "https://auth.example/a b"}, "not an http or https URL"),
        ("https://auth.example", {"resource_name": "Ships"}, "no resource"),
        ("https://auth.example", {"resource": "http://ships.example"}, "not an https URL"),
        ("https://auth.example", {"resource": "https://ships.example/#a"}, "fragment"),
        ("https://auth.example", {"resource": "https://ships%2eexample/"}, "percent-encoding"),
        ("https://auth.example", {"resource": "https://[fe80::1%25eth0]/"}, "zone"),
        ("https://auth.example", {"resource": "https://ships.example/a//b"}, "segments"),
        ("https://auth.example", {"resource": "https://ships.example", "scopes_supported": ["a b"]}, "scope"),
    ],
)
def test_options_that_are_of_no_use(issuer_url: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Verifier(issuer_url, **options)  # type: ignore[arg-type]
    assert not [t for t in threading.enumerate() if t.name.startswith("watchword-")]


def test_without_tls_there_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    Verifier("http://auth.invalid").close()
    assert len([r for r in caplog.records if "without TLS" in r.message]) == 2


def test_secrets_are_not_shown() -> None:
    with Verifier("http://127.0.0.1:1", secrets=["very secret " * 6], without_revocations=True) as verifier:
        assert "very" not in repr(verifier._keys._secrets) + repr(vars(verifier))


def test_the_memory_of_known_tokens_is_bounded(issuer: Issuer) -> None:
    with Verifier(issuer.url, cache_size=10, without_revocations=True) as verifier:
        tokens = [issuer.token() for _ in range(40)]
        for token in tokens:
            verifier.verify(token)
            verifier.verify(tokens[0])
        assert verifier._known is not None
        assert len(verifier._known) <= 12
        assert tokens[0] in verifier._known._young.keys() | verifier._known._old.keys()
    with Verifier(issuer.url, cache_size=0, without_revocations=True) as verifier:
        assert code(verifier, tokens[0]) == code(verifier, tokens[0]) == ""
        assert verifier._known is None


def test_a_known_token_expires(issuer: Issuer) -> None:
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, without_revocations=True) as verifier:
        token = issuer.token()
        assert code(verifier, token) == ""
        clock.on(601)
        assert code(verifier, token) == "token_expired"
        assert len(verifier._known or ()) == 0


def test_a_known_token_loses_its_key(issuer: Issuer) -> None:
    """A key that has left the set, or that another one has replaced under its kid, verifies nothing any more."""
    clock = ShiftedClock()
    with Verifier(issuer.url, clock=clock, without_revocations=True) as verifier:
        token = issuer.token()
        assert code(verifier, token) == ""
        issuer.add_key("key-1")
        clock.on(6)
        assert code(verifier, issuer.token(kid="key-1")) == "token_signature"  # of the former set
        verifier._keys.wake.set()
        until(lambda: code(verifier, token) == "token_signature")
        issuer.keys = {}
        issuer.add_key("key-2")
        verifier._keys.wake.set()
        until(lambda: verifier._keys.current(clock()).keys() == {"key-2"})
        clock.on(6)
        assert code(verifier, token) == "token_key_unknown"
