"""The threads that keep the key set fresh and follow the feed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from ._clock import Clock
from ._events import EventReader
from ._feed import MAX_PAGE, STREAM_LIFE, STREAM_QUERY, FeedState, check_answer
from ._http import Address, Current, Limits
from ._keys import MAX_KEY_SET
from ._keystate import TIMEOUT, KeyState, jitter
from ._wait import Wake


class _Outage:
    """An outage is logged when it begins and when it ends."""

    def __init__(self, logger: logging.Logger, what: str) -> None:
        self._logger = logger
        self._what = what
        self._on = False

    def note(self, error: Exception | None) -> None:
        if error is not None and not self._on:
            self._logger.warning("%s is out of reach; trying again until it is there: %s", self._what, error)
        elif error is None and self._on:
            self._logger.info("%s is there again", self._what)
        self._on = error is not None


class _Follower:
    """A daemon thread with the one connection that it waits for."""

    def __init__(self, name: str, run: Callable[[], None], wake: Wake) -> None:
        self.current = Current()
        self.stopped = False
        self.wake = wake
        self._thread = threading.Thread(target=run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Have the thread end, without waiting for it."""
        self.stopped = True
        self.wake.set()
        self.current.end()

    def join(self, timeout: float) -> None:
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(timeout)


class KeyFollower(_Follower):
    """Fetches the key set: at once, then before each answer is too old, and when it is woken. Nothing else
    fetches it, so there is never more than one fetch at a time.
    """

    def __init__(self, keys: KeyState, address: Address, clock: Clock, logger: logging.Logger) -> None:
        super().__init__("watchword-keys", self._run, keys.wake)
        self._keys = keys
        self._address = address
        self._clock = clock
        self._outage = _Outage(logger, f"the key set at {address.url}")

    def _run(self) -> None:
        while not self.stopped:
            pause = self._fetch()
            if not self.stopped:
                self.wake.wait(pause)

    def _fetch(self) -> float:
        """Fetch the set once and return how long to wait for the next time, in seconds."""
        asked = self._clock()
        headers = self._keys.begin(asked)
        error: Exception | None = None
        bounds = (0.0, 0.0)
        try:
            with self._address.open("", headers, Limits(TIMEOUT, TIMEOUT), self.current) as answer:
                body = b"" if answer.status == 304 else answer.read(MAX_KEY_SET)
                bounds = self._keys.answered(asked, answer.status, answer.headers, body)
        except Exception as e:  # whatever it is, it must not end the thread
            error = e
        retry = self._keys.end(error)
        if not self.stopped:
            self._outage.note(error)
        return jitter(bounds if error is None else retry)


class FeedFollower(_Follower):
    """Follows the feed: it reads pages until it has all, then follows the stream until that ends, and so on.
    While streams bring nothing, it reads pages alone.
    """

    def __init__(self, feed: FeedState, address: Address, clock: Clock, logger: logging.Logger) -> None:
        super().__init__("watchword-feed", self._run, Wake())
        self._feed = feed
        self._address = address
        self._clock = clock
        self._pages = _Outage(logger, f"the feed of revocations at {address.url}")
        self._streams = _Outage(
            logger, f"the event stream of revocations at {address.url} (pages are polled instead)"
        )
        self._may_wait = False  # everything was known a moment ago

    def _run(self) -> None:
        while not self.stopped:
            self.wake.wait(self._step())

    def _step(self) -> float:
        """Read pages, and then a stream if it is time for one. Returns how long to wait then, in seconds."""
        feed, held = self._feed, False
        error: Exception | None = None
        try:
            held = self._poll()
        except Exception as e:  # whatever it is, it must not end the thread
            error = e
        by_pages = feed.by_pages(self._clock())
        waited = held or not self._may_wait  # else it is not known whether the server holds pages back
        self._may_wait = error is None and by_pages
        if self.stopped:
            return 0
        feed.tried.happen()
        feed.sweep(self._clock())
        self._pages.note(error)
        if error is not None:
            return jitter(feed.page_failed())
        feed.pages_read()
        if by_pages:
            return jitter((0.05, 0.1) if waited else (0.8, 1.0))
        return self._follow()

    def _poll(self) -> bool:
        """Read pages up to the head. Reports whether the server held one back."""
        feed, may_wait, held = self._feed, self._may_wait, False
        while not self.stopped:
            asked = self._clock()
            limits = Limits(*feed.page_times(may_wait))
            headers = {"Accept": "application/json"}
            with self._address.open(feed.page_query(may_wait), headers, limits, self.current) as answer:
                check_answer(answer.status, answer.headers, "application/json")
                limits.patience = feed.patience  # the page is not held back any more
                limits.progress()
                body = answer.read(MAX_PAGE)
                outcome = feed.page_answered(asked, self._clock(), answer.status, answer.headers, body)
            held = held or outcome.held
            if not outcome.more:
                return held
            may_wait = False  # the next page is there already
        raise OSError("the verifier is closed")

    def _follow(self) -> float:
        """Follow a stream to its end, and return the pause after it."""
        feed = self._feed
        begun = self._clock()
        stream = feed.stream(begun)
        error: Exception
        try:
            limits = Limits(jitter((STREAM_LIFE / 2, STREAM_LIFE)), feed.silence)
            headers = {"Accept": "text/event-stream", "Last-Event-ID": f"{feed.log}:{feed.next}"}
            events = EventReader()
            with self._address.open(STREAM_QUERY, headers, limits, self.current) as answer:
                check_answer(answer.status, answer.headers, "text/event-stream")
                while chunk := answer.chunk():
                    for name, data in events.feed(chunk):
                        limits.progress()  # not for each byte: a line may never end
                        stream.handle(name, data, self._clock())
            error = OSError("the stream ended")
        except Exception as e:  # whatever it is, it must not end the thread
            error = e
        if not self.stopped:
            self._streams.note(None if stream.useful else error)
        return jitter(feed.stream_ended(begun, self._clock(), stream.useful))
