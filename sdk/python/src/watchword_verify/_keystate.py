"""What a verifier knows of the issuer's keys, without I/O: it is told the time and the answers."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from types import MappingProxyType

from ._clock import Moment
from ._errors import VerifyError
from ._headers import Headers
from ._keys import MAX_KEY_ID, Key, KeySetError, parse_key_set
from ._wait import Event, Pending, Wake

# Times in seconds, as in Go's verify. A key set is fetched again before the max-age of its answer
# has passed, but after MIN_LIFE at the earliest and MAX_LIFE at the latest. If the answer has no
# max-age, DEFAULT_LIFE is used; if it must not be stored, or is too old already, STALE_LIFE.
MIN_LIFE = 1.0
DEFAULT_LIFE = 30.0
STALE_LIFE = 5.0
MAX_LIFE = 3600.0
COOLDOWN = 5.0
"""The least time between a fetch and one because of an unknown kid: a client that invents kids
causes twelve fetches a minute at most."""
MAX_UNKNOWN = 1024
"""How many kids are remembered as unknown."""
UNKNOWN_LIFE = 60.0
"""For how long they are."""
TIMEOUT = 5.0
"""How long a fetch may take."""
OUTAGE = 24 * 3600.0
"""How long a set is used after its last good answer. The server keeps the revocation of a key for as
long, and relies on it that no resource server uses the key after that."""
FIRST_RETRY = 1.0
MAX_RETRY = 30.0
"""The longest pause after a failed fetch; it doubles with each further failure, up to MAX_RETRY."""

_NO_KEYS: Mapping[str, Key] = MappingProxyType({})


class FetchError(Exception):
    """An answer is of no use. Nothing is changed by it."""


class KeyState:
    """The last good key set, which is used until there is a newer one, for OUTAGE at most. An answer
    that is an error, garbage, or empty without secrets changes nothing.
    """

    def __init__(self, secrets: Mapping[str, Key] = _NO_KEYS) -> None:
        self._secrets = secrets
        self._set: tuple[Mapping[str, Key], Moment] | None = None  # the keys, and as of when
        self._etag = ""
        self._failures = 0
        self.lock = threading.RLock()  # guards everything below; a signal handler may call close
        self.tried = Event()
        """Happens after the first fetch."""
        self.wake = Wake()
        """Is set when a fetch is wanted at once."""
        self._begun: Moment | None = None  # when the last fetch began
        self._failed: Exception | None = None  # how it ended
        self._running: Event | None = None  # happens when the present or wanted fetch ends
        self._closed = False
        self._unknown: dict[str, float] = {}  # kids that a fetch did not bring, until when they count as unknown

    def current(self, now: Moment) -> Mapping[str, Key]:
        """Return the keys that may be used, without those of secrets."""
        known = self._set
        return _NO_KEYS if known is None or known[1].age(now) > OUTAGE else known[0]

    def find(self, kid: str, now: Moment) -> Key:
        """Return the key, or raise VerifyError: ``token_key_unknown`` if a fetch, now or not long
        ago, did not bring it, and ``key_set_unavailable`` if it is not known whether there is such a
        key. Raises Pending if a fetch decides; the caller then calls settle.
        """
        key = self._secrets.get(kid)  # before the key set, which cannot take its place
        if key is None:
            key = self.current(now).get(kid)
        if key is not None:
            return key
        if len(kid) > MAX_KEY_ID:
            raise VerifyError("token_key_unknown")
        if not self.tried.done():
            raise Pending(self.tried, "key_set_unavailable")
        return self._ask(kid, now)

    def _ask(self, kid: str, now: Moment) -> Key:
        with self.lock:
            if (key := self.current(now).get(kid)) is not None:
                return key  # a fetch has brought it meanwhile
            if now.mono < self._unknown.get(kid, now.mono):
                raise VerifyError("token_key_unknown")
            failed = self._failed
            if self._closed:
                raise VerifyError("key_set_unavailable") from failed
            if self._running is None:
                if self._begun is not None and now.mono - self._begun.mono < COOLDOWN:
                    raise VerifyError("key_set_unavailable") from failed
                self._running = Event()
                self.wake.set()
            if failed is not None:
                raise VerifyError("key_set_unavailable") from failed  # the next one may hang, too
            raise Pending(self._running, "key_set_unavailable", kid)

    def settle(self, kid: str, now: Moment) -> None:
        """Note that the awaited fetch has ended. Raises VerifyError if it did not bring the kid."""
        with self.lock:
            if kid in self.current(now):
                return
            if self._failed is not None or self._closed:
                raise VerifyError("key_set_unavailable") from self._failed
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()  # costs a fetch at worst, and those are limited
            self._unknown[kid] = now.mono + UNKNOWN_LIFE
        raise VerifyError("token_key_unknown")

    def begin(self, now: Moment) -> dict[str, str]:
        """Begin a fetch and return the headers of its request."""
        with self.lock:
            self.wake.clear()  # this fetch is the wanted one
            self._begun = now
            if self._running is None:
                self._running = Event()
        headers = {"Accept": "application/jwk-set+json, application/json"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        return headers

    def answered(self, asked: Moment, status: int, headers: Headers, body: bytes) -> tuple[float, float]:
        """Take an answer. Returns how long to wait before the next fetch, at least and at most.
        Raises FetchError.
        """
        as_of = asked.plus(-headers.age)  # it may come from a cache
        if status == 304 and self._etag and self._set is not None:
            self._set = (self._set[0], as_of)
        elif status != 200:
            raise FetchError(f"the status of the answer is {status}")
        else:
            try:
                keys = parse_key_set(body, self._set[0] if self._set else None)
            except KeySetError as e:
                raise FetchError(str(e)) from e
            if not keys and not self._secrets:
                raise FetchError("the set has no keys")
            self._set = (MappingProxyType(keys), as_of)
            self._etag = headers.get("ETag")
        life = headers.freshness(default=DEFAULT_LIFE, most=MAX_LIFE)
        life = STALE_LIFE if life is None or life <= 0 else max(life, MIN_LIFE)
        return life * 0.90, life * 0.98

    def end(self, error: Exception | None) -> tuple[float, float]:
        """End the fetch. Returns how long to wait after a failed one, at least and at most."""
        with self.lock:
            self._failed = error
            if self._running is not None:
                self._running.happen()
                self._running = None
            self.tried.happen()
        if error is None:
            self._failures = 0
            return 0, 0
        pause = retry_pause(self._failures, FIRST_RETRY, MAX_RETRY)
        self._failures += 1
        return pause

    def close(self) -> None:
        """Wake all who wait. There are no more fetches."""
        with self.lock:
            self._closed = True
            self.tried.happen()
            if self._running is not None:
                self._running.happen()

    def after_fork(self) -> None:
        """Make the copy in a child usable: what another thread of the parent held or was about to
        do is not there. The set stays, and its age goes on.
        """
        self.lock = threading.RLock()
        self.tried, self.wake = Event(), Wake()
        self._begun = self._failed = self._running = None
        self._failures = 0


def retry_pause(failures: int, first: float, most: float) -> tuple[float, float]:
    """Return a pause that doubles with every failure, up to a bound: at least and at most."""
    longest = min(first * 2 ** min(failures, 16), most)
    return longest / 2, longest


def jitter(bounds: tuple[float, float]) -> float:
    """Return a random time between two, so that many clients do not ask in step."""
    return random.uniform(*bounds)
