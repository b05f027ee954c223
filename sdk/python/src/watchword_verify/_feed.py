"""What a verifier knows of the feed of revocations, without I/O: it is told the time and the answers."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import urlencode

from ._clock import Moment
from ._errors import VerifyError
from ._headers import Headers
from ._keystate import FetchError, jitter, retry_pause
from ._revoked import EntryError, RevokedList, TokenIDs, read_entries
from ._token import Token
from ._wait import Event, Pending

OnStale = Literal["refuse", "accept"]
"""What is answered about a good token while it is not known whether it was revoked."""

# Times in seconds, as in Go's verify.
VERSION = 1
"""The highest version of the feed that this reader knows."""
STREAM_QUERY = urlencode({"version": VERSION})
STREAM_LIFE = 600.0
"""How long a stream lives at most; then it is begun again. This clock and the server's drift apart, and
replicas come and go."""
WITHOUT_STREAM = 60.0
"""How long pages are read after a stream that brought nothing in time: something on the way may hold streams
back. It doubles each time, up to MAX_WITHOUT_STREAM, because nothing is learned while a stream is tried."""
MAX_WITHOUT_STREAM = 900.0
STREAM_LAG = 2.0
"""How late the events of a stream may be; pages come sooner."""
MAX_WAIT = 20.0
"""How long the server may hold a page back until there is something new. From a server that holds no page back,
pages are read every POLL_EVERY."""
POLL_EVERY = 1.0
PAGE_TIMEOUT = 5.0
MIN_PATIENCE = 0.5
"""How long the next bytes of a page are waited for at least."""
PAGE_LIMIT = 10_000
"""How many entries a page may have."""
MAX_PAGE = 16 << 20
"""The greatest length of a page, in bytes."""
MAX_VALUES = 1 << 19
"""How many values the JSON of a page may have. A page of PAGE_LIMIT entries has a seventh of that. Without the
bound, a page of MAX_PAGE would take half a gigabyte as objects."""
FIRST_RETRY = 0.5
MAX_RETRY = 3.0
MAX_REATTACH = 0.1
"""A stream that was useful for POLL_EVERY and then ends is begun again within this time: its replica has ended,
and another one is there. A stream that ends sooner, for an unknown reason, is begun again more slowly."""
CLOCK_SKEW = 600.0
"""How long entries are kept after they have expired."""
SWEEP_EVERY = 60.0
CLOCK_DRIFT = 0.05
"""By how much two clocks may differ about what lies between two moments half a minute apart."""

_MAX_INT64 = (1 << 63) - 1
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)
_1970 = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Head:
    """What a page, and an event about the head of the log, says of the log."""

    log: str
    head: int
    as_of: float
    """When the sender last confirmed the head, by its clock, in seconds since 1970."""
    age: float
    """How long before the sending that was, in seconds."""


@dataclass(frozen=True, slots=True)
class PageOutcome:
    """What to do after a page."""

    more: bool
    """Ask for the next page at once. Otherwise everything is known."""
    held: bool
    """The server held the page back, or can."""


class FeedState:
    """The entries of the feed, and as of when all of them are known."""

    def __init__(self, max_staleness: float, on_stale: OnStale, logger: logging.Logger) -> None:
        self.max_staleness = max_staleness
        self.on_stale = on_stale
        self._logger = logger
        self.list = RevokedList()
        self.confirmed: Moment | None = None
        """When everything was last known, by this clock; None: never."""
        self.lock = threading.Lock()  # held while the list, log and next change
        # Without a global lock of the interpreter, a reader might see the middle of a change.
        self._revoked = self.list.revoked if _has_global_lock() else self._revoked_locked
        self.tried = Event()
        """Happens after the feed was asked for the first time."""
        self._stale = False  # the present outage has been logged

        self.log = ""
        """The id of the log; empty: none has been read."""
        self.next = 0
        """Entries up to this number have been applied."""
        self._beat = 0.0  # how often the server confirms the head, by its own account; 0: unknown
        self._swept: Moment | None = None
        # Of the last pages that had everything up to the head: log, when it was written by the sender's clock, and
        # what it has confirmed.
        self._confirming: deque[tuple[str, float, Moment]] = deque(maxlen=4)
        self._restart()

    def _restart(self) -> None:
        self._failures = 0  # pages that failed in a row
        self._without = WITHOUT_STREAM
        self._stream_again: Moment | None = None  # until when pages are read instead of streams

    # What a verifier asks.

    def check(
        self, token: Token, ids: TokenIDs, now: Moment, max_staleness: float | None = None, on_stale: OnStale | None = None
    ) -> None:
        """Raise VerifyError if the token was revoked, or if that is not known well enough and tokens are then
        refused. Raises Pending before the feed was asked for the first time.
        """
        # The confirmation is read before the list, which then has all of it. The list might lack an entry of
        # a later confirmation.
        confirmed = self.confirmed
        if self._revoked(token, ids):
            raise VerifyError("token_revoked")
        if confirmed is not None and confirmed.age(now) <= (self.max_staleness if max_staleness is None else max_staleness):
            return
        if not self.tried.done():
            raise Pending(self.tried, "revocation_stale")
        if not self.fresh(now) and not self._stale:
            self._stale = True
            self._logger.error(
                "it is not known any more which tokens have been revoked (max_staleness %s s, on_stale %s)",
                self.max_staleness,
                self.on_stale,
            )
        if (on_stale or self.on_stale) == "accept" and confirmed is not None:
            return
        raise VerifyError("revocation_stale")

    def _revoked_locked(self, token: Token, ids: TokenIDs) -> bool:
        with self.lock:
            return self.list.revoked(token, ids)

    def fresh(self, now: Moment) -> bool:
        """Report whether everything was known recently enough."""
        return self.confirmed is not None and self.confirmed.age(now) <= self.max_staleness

    # What the background does.

    @property
    def silence(self) -> float:
        """How long a stream may bring nothing, and how old the server's own knowledge may be, before another
        replica is asked. It is so short that the answer comes before half of max_staleness has passed, but no
        shorter than two heartbeats if there is room for them.
        """
        return min(max(2 * self._beat, self.max_staleness / 4), self.max_staleness / 2)

    @property
    def patience(self) -> float:
        """How long the first bytes of a page, and the next ones, are waited for. A frozen replica accepts
        connections and never answers, or stops in the middle, so another one is asked soon. A server that is
        merely slow is given twice as long after each failure.
        """
        first = max(self.max_staleness / 8, MIN_PATIENCE)
        return min(first * 2.0 ** min(max(self._failures - 1, 0), 16), PAGE_TIMEOUT)

    @property
    def wait(self) -> int:
        """How long the server may hold a page back, in whole seconds: so short that a confirmation never comes
        close to max_staleness.
        """
        return max(1, int(min(self.max_staleness / 4, MAX_WAIT)))

    def page_query(self, may_wait: bool) -> str:
        """Return the query of a request for the next page."""
        query = {"version": VERSION, "after": self.next, "limit": PAGE_LIMIT}
        if may_wait:
            query["wait"] = self.wait
        return urlencode(query)

    def page_times(self, may_wait: bool) -> tuple[float, float]:
        """Return how long a page may take as a whole, and until its first bytes, in seconds."""
        if not may_wait:
            return min(PAGE_TIMEOUT, self.max_staleness), self.patience
        return self.wait + min(PAGE_TIMEOUT, self.max_staleness - self.wait), self.wait + self.patience

    def page_answered(self, asked: Moment, now: Moment, status: int, headers: Headers, body: bytes) -> PageOutcome:
        """Take a page that was asked for at a moment. Raises FetchError."""
        check_answer(status, headers, "application/json")
        if len(body) > MAX_PAGE:
            raise FetchError(f"a page of more than {MAX_PAGE} bytes")
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_VALUES:
            raise FetchError(f"a page of more than {MAX_VALUES} values")
        page = _object(body)
        head = _read_head(page)
        beat, waited = _number(page, "heartbeat_ms"), page.get("waited_ms")
        snapshot, more = _flag(page, "snapshot"), _flag(page, "more")
        waited = None if waited is None else _number(page, "waited_ms") / 1000
        listed = page.get("entries", [])
        if type(listed) is not list:
            raise FetchError("the entries of the page are not an array")
        try:
            entries = read_entries(listed)
        except EntryError as e:
            raise FetchError(str(e)) from e
        self._beat = max(beat, 0) / 1000
        cached = headers.age + 1 if headers.get("Age") else 0  # it counts whole seconds

        with self.lock:
            if head.log != self.log or snapshot:
                asked_after = self.next
                self._start_anew(head.log)
                if asked_after > 0 and not snapshot:
                    return PageOutcome(True, waited is not None)  # the page begins in the middle of another log
            next = entries.last if more else max(entries.last, head.head)
            if more and next <= self.next:
                raise FetchError("the feed has more, but does not go on")
            self.list.apply(entries)
            self.next = max(self.next, next)
        if not more:
            at = _written_after(asked, now, waited).plus(-head.age - cached)
            self._confirm(self._first_seen(head, at), now)
            self._check_current(head.age)
        return PageOutcome(more, waited is not None)

    def stream(self, begun: Moment) -> Stream:
        """Begin a stream whose request is sent at a moment."""
        return Stream(self, begun)

    def page_failed(self) -> tuple[float, float]:
        """Return the pause after a page that failed. After the first two failures it is short: another replica
        is asked, and once more, because the load balancer may have chosen the same one again.
        """
        failures, self._failures = self._failures, self._failures + 1
        return (0, MAX_REATTACH) if failures <= 1 else retry_pause(failures - 1, FIRST_RETRY, MAX_RETRY)

    def pages_read(self) -> None:
        """Note that everything up to the head was read."""
        self._failures = 0

    def by_pages(self, now: Moment) -> bool:
        """Report whether pages are read instead of a stream."""
        return self._stream_again is not None and now.mono < self._stream_again.mono

    def stream_ended(self, begun: Moment, now: Moment, useful: bool) -> tuple[float, float]:
        """Return the pause after a stream."""
        if useful:
            self._without = WITHOUT_STREAM
            if now.mono - begun.mono >= POLL_EVERY:
                return 0, MAX_REATTACH
        else:
            self._stream_again = now.plus(jitter((self._without / 2, self._without)))
            self._without = min(2 * self._without, MAX_WITHOUT_STREAM)
        return POLL_EVERY / 10, POLL_EVERY / 2

    def sweep(self, now: Moment) -> None:
        """Forget expired entries now and then."""
        if self._swept is not None and now.mono - self._swept.mono < SWEEP_EVERY:
            return
        self._swept = now
        for number in self.list.shards:
            with self.lock:  # for one shard at a time, so that a fork need not wait for all
                self.list.expire(math.floor(now.wall - CLOCK_SKEW), number)

    def after_fork(self) -> None:
        """Make the copy in a child usable. The list stays, and so does the confirmation, whose age goes on."""
        self.lock = threading.Lock()
        self.tried = Event()
        self._restart()

    def _start_anew(self, log: str) -> None:
        """Begin to read a log from its beginning. What was known stays known."""
        if log == self.log and self.next == 0:
            return
        if self.log:
            self._logger.warning(
                "the feed of revocations begins anew with the log %.64r instead of %.64r, which was read to %d; "
                "what was known to be revoked stays revoked",
                log, self.log, self.next,
            )  # fmt: skip
        self.log, self.next = log, 0

    def _confirm(self, at: Moment, now: Moment) -> None:
        """Note that everything that was revoked before a moment is known."""
        if self.confirmed is not None and self.confirmed.mono > at.mono:
            return
        self.confirmed = at
        if self._stale and self.fresh(now):
            self._stale = False
            self._logger.info("it is known again which tokens have been revoked")

    def _first_seen(self, head: Head, at: Moment) -> Moment:
        """Return what a page confirms: at, or what it confirmed when it came before. Then a cache that sends no Age
        has answered with it again, whatever has been revoked since.
        """
        written = head.as_of + head.age
        for log, when, confirmed in self._confirming:
            if (log, when) == (head.log, written) and confirmed.mono < at.mono:
                return confirmed
        self._confirming.appendleft((head.log, written, at))
        return at

    def _check_current(self, age: float) -> None:
        """Raise FetchError if the server's own knowledge is so old that this reader would be stale soon. Another
        replica may know more.
        """
        if age > self.silence:
            raise FetchError("this replica of the server is cut off from the log of revocations")


class Stream:
    """One event stream.

    The request was sent at begun, by this clock. The server's first event is of the moment server, by the
    server's clock, which was not before begun. So a moment t of the server's clock was not before
    begun + (t - server) by this clock, however long an event was on the way. Only differences within one clock
    are used.
    """

    def __init__(self, feed: FeedState, begun: Moment) -> None:
        self._feed = feed
        self._begun = begun
        self._server: float | None = None
        self.useful = False
        """Whether it confirmed something new."""

    def handle(self, name: str, data: bytes, now: Moment) -> None:
        """Take an event that has come at a moment. Raises FetchError: then the stream is given up."""
        feed = self._feed
        if name == "revocation":
            try:
                entries = read_entries([_object(data)])
            except EntryError as e:
                raise FetchError(str(e)) from e
            if self._server is None:
                raise FetchError("the stream does not say where it begins")
            with feed.lock:
                feed.list.apply(entries)
                feed.next = max(feed.next, entries.last)
        elif name in ("snapshot", "resume", "head"):
            self._handle_head(name, _read_head(_object(data)), now)
        # Events of other names are not about revocations.

    def _handle_head(self, name: str, head: Head, now: Moment) -> None:
        feed = self._feed
        if self._server is None:
            self._server = head.as_of + head.age
        if name == "snapshot":
            with feed.lock:
                feed._start_anew(head.log)
            return
        if head.log != feed.log:
            raise FetchError("the stream goes on with another log")
        if name == "resume":
            return
        with feed.lock:
            feed.next = max(feed.next, head.head)
        by_sum, by_age = self._begun.plus(head.as_of - self._server), now.plus(-head.age)
        earlier = min(by_sum, by_age, key=lambda moment: moment.mono)
        feed._confirm(earlier, now)
        # By both clocks: what this stream confirms would stay old if the wall clock was set on.
        self.useful = earlier.age(by_age) <= min(STREAM_LAG, feed.max_staleness / 2)
        if not self.useful:
            raise FetchError("the stream is far behind, or a clock was set")
        feed._check_current(head.age)


def check_answer(status: int, headers: Headers, media_type: str) -> None:
    """Raise FetchError unless an answer is one of the feed."""
    if status == 410:
        raise FetchError(f"the server has ended version {VERSION} of the feed: watchword-verify must be updated")
    if status != 200 or headers.media_type != media_type:
        raise FetchError(f"the answer is {status}, {headers.media_type[:64]}")


def _written_after(asked: Moment, now: Moment, waited: float | None) -> Moment:
    """Return a moment after which a page was written: when it was asked for, and as much later as the server says
    that it held the page back. If the server says that it was held back for longer than has passed, a cache has
    answered with somebody else's page; then only the moment of the request counts.
    """
    if waited is None or waited < 0:
        return asked
    passed = now.mono - asked.mono
    if waited > passed + CLOCK_DRIFT:
        return asked
    return asked.plus(min(waited, passed))


def _has_global_lock() -> bool:
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)  # since Python 3.13
    return enabled()


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as e:
        raise FetchError("this is not the JSON of the feed") from e
    if type(value) is not dict:
        raise FetchError("this is not a JSON object")
    return value


def _read_head(members: dict[str, Any]) -> Head:
    version = _number(members, "version") if "version" in members else 1
    if not 1 <= version <= VERSION:
        raise FetchError(
            f"this is version {version} of the feed; this reader knows version {VERSION} and must be updated"
        )
    log, as_of, age = members.get("log"), members.get("as_of"), _number(members, "age_ms")
    if type(log) is not str or not log or type(as_of) is not str or age < 0:
        raise FetchError("this is not of the feed")
    return Head(log, _number(members, "head"), _read_time(as_of), age / 1000)


def _number(members: dict[str, Any], name: str) -> int:
    value = members.get(name)
    if value is None:
        return 0
    if type(value) is not int or not -_MAX_INT64 <= value <= _MAX_INT64:
        raise FetchError(f"{name} is not a whole number")
    return value


def _flag(members: dict[str, Any], name: str) -> bool:
    value = members.get(name)
    if value is not None and type(value) is not bool:
        raise FetchError(f"{name} is neither true nor false")
    return bool(value)


def _read_time(text: str) -> float:
    """Read a time of RFC 3339, in seconds since 1970."""
    match = _RFC3339.fullmatch(text)
    try:
        if not match:
            raise ValueError
        date, time, fraction, zone = match.groups()
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        raise FetchError("as_of is not a time of RFC 3339") from None
    if moment.year == 1:
        raise FetchError("as_of says nothing")
    return (moment - _1970) / timedelta(seconds=1) + float(fraction or 0)
