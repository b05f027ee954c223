"""The verifier does what the test vectors say."""

from __future__ import annotations

import functools
import json
import logging
from typing import Any

import pytest
import vectors

from watchword_verify import (
    DEFAULT_MAX_STALENESS,
    MAX_LEEWAY,
    Moment,
    Reauthentication,
    Requirement,
    Token,
    VerifyError,
    acr,
    all_of,
    amr,
    any_of,
    bearer,
    claim,
    fresh_auth,
    metadata_path,
    scope,
)
from watchword_verify import _events, _feed, _keys, _keystate, _token
from watchword_verify import requirements as reqs
from watchword_verify._answers import refusal
from watchword_verify._answers import Resource
from watchword_verify._events import EventError, EventReader
from watchword_verify._feed import FeedState, Stream
from watchword_verify._headers import Headers
from watchword_verify._keys import KeySetError, parse_key_set, secret_keys
from watchword_verify._keystate import FetchError, KeyState
from watchword_verify._revoked import TokenIDs, digest
from watchword_verify._strict import encode_base64
from watchword_verify._token import Rules, _read
from watchword_verify._verifier import MIN_MAX_STALENESS, _Base
from watchword_verify._wait import Pending

LOGGER = logging.getLogger("tests")
Case = dict[str, Any]


@vectors.cases("digests")
def test_digests(case: Case) -> None:
    assert encode_base64(digest(case["kind"], case["value"])) == case["id"]


@vectors.cases("keysets")
def test_key_sets(case: Case) -> None:
    body = case["body"].encode() + b" " * case.get("pad", 0)
    if case["error"]:
        with pytest.raises(KeySetError):
            parse_key_set(body)
        return
    keys = parse_key_set(body)
    assert [{"kid": kid, "alg": key.algorithm} for kid, key in keys.items()] == case["keys"]
    again = parse_key_set(body, keys)
    assert all(again[kid] is key for kid, key in keys.items())


TOKENS = vectors.load("tokens")


@vectors.cases("tokens")
def test_tokens(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    config, wall = case.get("config", TOKENS["config"]), case.get("now", TOKENS["now"])
    monkeypatch.setattr(_Base, "_start", lambda self: setattr(self, "_process", 1))  # no background
    verifier = _Base(
        config["issuer"],
        audience=config["audience"],
        leeway=config["leeway"],
        secrets=TOKENS["secrets"],
        without_revocations=True,
        clock=lambda: Moment(100, wall),
    )
    keys = TOKENS["key_set"]
    for _ in range(2):  # the second time, the token is known
        code, token = _checked(verifier, case["token"], keys, wall)
        assert code == case["code"]
        if token is not None:
            assert token.claims == case["claims"]
            assert json.loads(token.payload) == case["claims"]
            assert token.issued_at == pytest.approx(case.get("issued_at", token.issued_at), abs=1e-6)
    if later := case.get("later"):
        wall = later.get("now", wall)
        assert _checked(verifier, case["token"], later.get("key_set", keys), wall)[0] == later["code"]


def _checked(verifier: _Base, text: str, keys: dict[str, Any], wall: float) -> tuple[str, Token | None]:
    """Check a token longer than five seconds after the key set was fetched."""
    body = json.dumps(keys).encode()
    _fetch(verifier._keys, Moment(90, wall), body)
    try:
        return "", verifier._check(text, (), None, None)
    except VerifyError as e:
        return e.code, None
    except Pending as pending:
        _fetch(verifier._keys, Moment(99, wall), body)
        with pytest.raises(VerifyError) as error:
            verifier._settle(pending)
        return error.value.code, None


def _fetch(keys: KeyState, now: Moment, body: bytes) -> None:
    keys.begin(now)
    keys.answered(now, 200, Headers(), body)
    keys.end(None)


@vectors.cases("bearer")
def test_bearer(case: Case) -> None:
    try:
        assert bearer(case["authorization"]) == case["token"]
        assert case["code"] == ""
    except VerifyError as e:
        assert e.code == case["code"]


def requirement(tree: dict[str, Any]) -> Requirement:
    """Make the requirement that a case describes."""
    ((name, of),) = tree.items()
    match name:
        case "any":
            return any_of(*map(requirement, of))
        case "all":
            return all_of(*map(requirement, of))
        case "fresh_auth":
            return fresh_auth(of)
        case "claim":
            return claim(*of)
        case "scope":
            return scope(*of)
        case "amr":
            return amr(*of)
        case "acr":
            return acr(*of)
    raise AssertionError(name)


@vectors.cases("requirements")
def test_requirements(case: Case) -> None:
    token = _read("kid", json.dumps(case["claims"]).encode())
    made = requirement(case["requirement"])
    assert made.text == case["text"]
    error: VerifyError | None = None
    try:
        reqs.judge((made,), token, case["now"], case["leeway"])
    except VerifyError as e:
        error = e
        assert made.text in e.detail
    assert (error.code if error else "") == case["code"]
    assert made.met(token, case["now"], case["leeway"]) == (error is None)
    again = (error.again if error else None) or Reauthentication()
    assert again.max_age == case.get("max_age", 0)
    assert list(again.acr_values) == case.get("acr_values", [])
    needed = again.scope or (error.scope if error else ())
    assert " ".join(needed) == case.get("scope", "")


@vectors.cases("challenges")
def test_challenges(case: Case) -> None:
    config = case["config"]
    again, scopes = case.get("again", {}), tuple(case.get("scope", "").split())
    wanted = Reauthentication(again.get("max_age", 0), tuple(again.get("acr_values", ())), scopes)
    error = VerifyError(
        case["code"],
        case["detail"],
        again=wanted if case["code"] == "reauthentication_required" else None,
        scope=scopes if case["code"] == "forbidden" else (),
    )
    resource = Resource.of(config["resource"], config["issuer"], "", ()) if config.get("resource") else None
    answer = refusal(error, config["issuer"], resource)
    assert answer.status == error.status == case["status"]
    headers = dict(answer.headers)
    assert case["headers"].items() <= headers.items()
    assert headers["Content-Length"] == str(len(answer.body))
    assert not headers.keys() & set(case["absent_headers"])
    assert json.loads(answer.body) == case["body"]


def text(piece: str | dict[str, Any]) -> bytes:
    if isinstance(piece, str):
        return piece.encode()
    return bytes(piece["repeat"] * piece["text"], "utf-8")


@vectors.cases("events")
def test_events(case: Case) -> None:
    reader, events, failed = EventReader(), list[tuple[str, bytes]](), False
    try:
        for piece in map(text, case["chunks"]):
            for at in range(0, len(piece), 1 << 16):  # as it is read from a socket
                events += reader.feed(piece[at : at + (1 << 16)])
    except EventError:
        failed = True
    assert events == [(event["event"], text(event["data"])) for event in case["events"]]
    assert failed == case["error"]


@vectors.cases("metadata")
def test_metadata(case: Case) -> None:
    config = case["config"]
    made = functools.partial(
        Resource.of, config["resource"], config["issuer"], config.get("resource_name", ""), config.get("scopes_supported", ())
    )
    if case["error"]:
        with pytest.raises(ValueError):
            made()
        return
    resource = made()
    assert (resource.path, resource.url) == (case["path"], case["url"])
    assert metadata_path(config["resource"]) == case["path"]
    assert json.loads(resource.answer.body) == case["body"]


@vectors.cases("constants")
def test_constants(case: Case) -> None:
    value = {
        "token_length": _token.MAX_TOKEN,
        "kid_length": _keys.MAX_KEY_ID,
        "key_set_length": _keys.MAX_KEY_SET,
        "rsa_bits_least": _keys.MIN_RSA_BITS,
        "rsa_bits_most": _keys.MAX_RSA_BITS,
        "leeway_most": MAX_LEEWAY,
        "key_life_default": _keystate.DEFAULT_LIFE,
        "key_life_least": _keystate.MIN_LIFE,
        "key_life_stale": _keystate.STALE_LIFE,
        "key_life_most": _keystate.MAX_LIFE,
        "key_cooldown": _keystate.COOLDOWN,
        "key_timeout": _keystate.TIMEOUT,
        "key_retry_first": _keystate.FIRST_RETRY,
        "key_retry_most": _keystate.MAX_RETRY,
        "unknown_kid_kept": _keystate.UNKNOWN_LIFE,
        "unknown_kids": _keystate.MAX_UNKNOWN,
        "key_outage": _keystate.OUTAGE,
        "max_staleness_default": DEFAULT_MAX_STALENESS,
        "max_staleness_least": MIN_MAX_STALENESS,
        "page_limit": _feed.PAGE_LIMIT,
        "page_length": _feed.MAX_PAGE,
        "page_timeout": _feed.PAGE_TIMEOUT,
        "patience_least": _feed.MIN_PATIENCE,
        "wait_most": _feed.MAX_WAIT,
        "poll_every": _feed.POLL_EVERY,
        "page_retry_first": _feed.FIRST_RETRY,
        "page_retry_most": _feed.MAX_RETRY,
        "reattach_most": _feed.MAX_REATTACH,
        "event_length": _events.MAX_EVENT,
        "stream_life_most": _feed.STREAM_LIFE,
        "stream_lag": _feed.STREAM_LAG,
        "without_stream": _feed.WITHOUT_STREAM,
        "without_stream_most": _feed.MAX_WITHOUT_STREAM,
        "clock_drift": _feed.CLOCK_DRIFT,
        "expired_kept": _feed.CLOCK_SKEW,
    }[case["name"]]
    assert value == case["value"]


class Clocks:
    """The clocks of a machine in a case."""

    def __init__(self, start: float) -> None:
        self._start = start
        self._set = 0.0

    def at(self, ms: float) -> Moment:
        # Whole numbers where the vectors have whole milliseconds, so that bounds are met exactly.
        return Moment(ms / 1000, self._start + self._set + ms / 1000)

    def change(self, seconds: float) -> None:
        self._set += seconds


def answer_of(step: dict[str, Any]) -> tuple[int, Headers, bytes] | None:
    answer = step["answer"]
    if answer.get("fails"):
        return None
    body = answer["text"].encode() if "text" in answer else json.dumps(answer.get("body")).encode()
    return answer["status"], Headers.of(answer.get("headers", {})), body + b" " * answer.get("pad", 0)


@vectors.cases("keys_over_time")
def test_keys_over_time(case: Case) -> None:
    clocks = Clocks(vectors.load("keys_over_time")["start"])
    keys = KeyState(secret_keys(case.get("config", {}).get("secrets", [])))
    awaited = list[tuple[Pending, str]]()
    for step in case["steps"]:
        now = clocks.at(step["at_ms"])
        match step["do"]:
            case "clock_set":
                clocks.change(step["by_s"])
            case "look":
                assert list(keys.current(now)) == step["keys"]
            case "find":
                result = "found"
                try:
                    keys.find(step["kid"], now)
                except VerifyError as e:
                    result = e.code
                except Pending as pending:
                    result = "fetch"
                    awaited.append((pending, step["then"]))
                assert result == step["result"]
                assert (not keys.wake._queue.empty()) == step.get("asks", False) or not keys.tried.done()
            case "fetch":
                headers = keys.begin(now)
                if "if_none_match" in step.get("request", {}):
                    assert headers.get("If-None-Match", "") == step["request"]["if_none_match"]
                error: Exception | None = None
                pause = (0.0, 0.0)
                try:
                    answer = answer_of(step)
                    if answer is None:
                        raise FetchError("no answer")
                    pause = keys.answered(now, *answer)
                except FetchError as e:
                    error = e
                retry = keys.end(error)
                assert (error is not None) == step["error"]
                assert [1000 * t for t in (retry if error else pause)] == pytest.approx(step["next_ms"])
                assert list(keys.current(now)) == step["keys"]
                for waiting, then in awaited:
                    assert waiting.event.done()
                    result = "found"
                    try:
                        if waiting.kid:
                            keys.settle(waiting.kid, now)
                    except VerifyError as e:
                        result = e.code
                    assert result == then
                awaited.clear()
            case other:
                raise AssertionError(other)


def made_token(of: dict[str, Any]) -> Token:
    claims = {"iss": "i", "aud": "a", "exp": 1, "sub": "-", "jti": "-", "iat": 0, **of}
    return _read(claims.pop("kid", "-"), json.dumps(claims).encode())


@vectors.cases("feed_over_time")
def test_feed_over_time(case: Case) -> None:
    clocks = Clocks(vectors.load("feed_over_time")["start"])
    config = case["config"]
    feed = FeedState(config["max_staleness"], config.get("on_stale", "refuse"), LOGGER)
    stream: Stream | None = None
    for step in case["steps"]:
        now = clocks.at(step["at_ms"])
        match step["do"]:
            case "clock_set":
                clocks.change(step["by_s"])
            case "expire":
                feed._swept = None
                feed.sweep(now)
            case "check":
                token, code = made_token(step["token"]), ""
                feed.tried.happen()
                try:
                    feed.check(token, TokenIDs.of(token), now, step.get("max_staleness"), step.get("on_stale"))
                except VerifyError as e:
                    code = e.code
                assert code == step["code"]
            case "page":
                _page(feed, step, clocks)
            case "stream":
                stream = feed.stream(now)
                assert f"{feed.log}:{feed.next}" == step["request"]["last_event_id"]
                assert feed.silence * 1000 == pytest.approx(step["silence_ms"])
            case "event":
                assert stream is not None
                data = step["data"] if isinstance(step["data"], str) else json.dumps(step["data"])
                lines = "".join(f"data: {line}\n" for line in data.split("\n"))
                failed = False
                try:
                    for event in EventReader().feed(f"event: {step['event']}\n{lines}\n".encode()):
                        stream.handle(*event, now)
                except FetchError:
                    failed = True
                assert failed == step.get("error", False)
            case "end" | "silence":
                stream = None
            case other:
                raise AssertionError(other)
        if "state" in step:
            _state(feed, step["state"])


def _page(feed: FeedState, step: dict[str, Any], clocks: Clocks) -> None:
    wait = step.get("request", {}).get("wait")
    query = f"version=1&after={step['request']['after']}&limit=10000" + (f"&wait={wait}" if wait is not None else "")
    assert feed.page_query(wait is not None) == query
    again = failed = False
    try:
        answer = answer_of(step)
        if answer is None:
            raise FetchError("no answer")
        outcome = feed.page_answered(clocks.at(step["at_ms"]), clocks.at(step["answered_ms"]), *answer)
        again = outcome.more
    except FetchError:
        failed = True
    assert (again, failed) == (step["again"], step["error"])


def _state(feed: FeedState, state: dict[str, Any]) -> None:
    assert (feed.log, feed.next, len(feed.list)) == (state.get("log", ""), state.get("next", 0), state["entries"])
    confirmed = None if feed.confirmed is None else 1000 * feed.confirmed.mono
    assert confirmed == (None if state["confirmed_ms"] is None else pytest.approx(state["confirmed_ms"], abs=0.01))
