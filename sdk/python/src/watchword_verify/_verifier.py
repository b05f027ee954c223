"""Verifiers, for threads and for asyncio."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from . import _http, requirements
from ._answers import Answer, Resource, refusal
from ._background import FeedFollower, KeyFollower
from ._clock import Clock, Moment, system_clock
from ._errors import VerifyError
from ._feed import FeedState, OnStale
from ._http import Address
from ._keys import Key, secret_keys
from ._keystate import KeyState
from ._known import Known, KnownTokens
from ._revoked import TokenIDs
from ._token import Rules, Token
from ._wait import Lock, Pending
from .requirements import Requirement

DEFAULT_MAX_STALENESS = 10.0
"""The default of max_staleness, in seconds. It is twice what a replica of the server allows itself, so that the
restart of one, or the loss of a connection, goes unnoticed."""
MIN_MAX_STALENESS = 3.0
"""The least max_staleness: below that the feed would seem broken between two heartbeats."""
DEFAULT_CACHE_SIZE = 4096
"""The default of cache_size."""
MAX_LEEWAY = 300.0
"""The bound of leeway, in seconds. A revocation is forgotten some minutes after its tokens have expired; a token
that was accepted for longer would be valid again."""

# How long a call waits for the background at most, in seconds. A fetch has bounds of its own, but for what the
# resolver of the system takes to find a host's addresses.
_MAX_WAIT = 10.0
# How long close waits for a thread that such a resolver holds.
_MAX_JOIN = 5.0

# All that have not been closed, for the hooks of a fork.
_alive: weakref.WeakSet[_Base] = weakref.WeakSet()
_forking = threading.RLock()  # held over a fork, and while _alive changes; before any lock of a verifier


@dataclass(frozen=True, slots=True)
class Status:
    """What a verifier knows at a moment, for a health page."""

    keys: int
    """Public keys; those of secrets are not counted."""
    revocations: int
    """Entries of the feed that have not been forgotten."""
    confirmed_age: float | None
    """How long ago it last knew all revocations, in seconds; None: never, or it does not follow them."""
    fresh: bool
    """That is within max_staleness, or it does not follow revocations."""


class _Base:
    """What both verifiers share: everything but how they wait."""

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Sequence[str] | None = None,
        resource: str = "",
        resource_name: str = "",
        scopes_supported: Sequence[str] = (),
        key_set_url: str = "",
        secrets: Sequence[str] = (),
        revocations_url: str = "",
        without_revocations: bool = False,
        max_staleness: float = DEFAULT_MAX_STALENESS,
        on_stale: OnStale = "refuse",
        cache_size: int = DEFAULT_CACHE_SIZE,
        leeway: float = 0,
        ssl_context: ssl.SSLContext | None = None,
        clock: Clock = system_clock,
        logger: logging.Logger | None = None,
    ) -> None:
        """Make a verifier and start it. The server need not be reachable yet. The caller closes it when it is no
        longer used. Raises ValueError if an option is of no use.

        issuer: what the tokens' iss must be, exactly: the public URL of the Watchword cluster.

        audience: the values of which a token's aud must have one; by default the issuer.

        resource: the URL under which clients reach this resource server (RFC 9728 §1.2). With it, the metadata tell
        clients which issuer they need, and every challenge tells them where that is said. resource_name is its name
        for people, and scopes_supported are scopes that requests to it need; both are for the metadata.

        key_set_url: where the public keys are; by default issuer/.well-known/jwks.json. An attacker who can change
        its answers can pass as any user, so use https.

        secrets: for a deployment that signs with a shared secret (HS256, HS384, HS512): the secrets themselves. With
        one, a resource server can issue tokens as any user. Prefer public keys. Several are accepted at a time, so
        that the secret can be changed.

        revocations_url: where the feed of revocations is; by default issuer/api/revocations.

        without_revocations: accept tokens until they expire, even if they were revoked.

        max_staleness: the bound, in seconds, 3 at least. If the verifier has had no confirmation for that long that
        it knows all revocations, it does what on_stale says: "refuse" (503) or "accept". One that has never read
        the feed refuses in any case.

        cache_size: about how many verified tokens are remembered; 0: none. Whether one has expired or was revoked
        is checked every time. A token takes some 5 KB.

        leeway: by how much clocks may differ, in seconds, from 0 to 300: exp and nbf are judged that much in the
        token's favour.

        ssl_context: for the connections to the server; by default that of the system's authorities.

        clock: returns the present moment; for tests.

        logger: gets an entry when the keys or the feed go out of reach, once for each outage; by default the
        logger "watchword_verify".
        """
        base = issuer.removesuffix("/")
        if not issuer or any(not "!" <= c <= "~" or c in '"\\' for c in issuer):
            raise ValueError(f"the issuer ({issuer!r}) is not an http or https URL")
        if not max_staleness >= MIN_MAX_STALENESS:
            raise ValueError(f"max_staleness is {max_staleness} s; it is {MIN_MAX_STALENESS:.0f} s at least")
        if not 0 <= leeway <= MAX_LEEWAY:
            raise ValueError(f"leeway is {leeway} s; it is from 0 to {MAX_LEEWAY:.0f} s")
        if on_stale not in ("refuse", "accept"):
            raise ValueError(f'on_stale is {on_stale!r}; it is "refuse" or "accept"')
        if isinstance(audience, str):
            audience = [audience]
        if isinstance(secrets, str):
            raise ValueError("secrets is a list of secrets")
        if not resource and (resource_name or scopes_supported):
            raise ValueError("there is a name or there are scopes of a resource, but no resource")
        self.issuer = issuer
        self._resource = Resource.of(resource, issuer, resource_name, scopes_supported) if resource else None
        self._logger = logger or logging.getLogger("watchword_verify")
        self._clock = clock
        self._rules = Rules(issuer, frozenset(audience or [issuer]), leeway)
        self._keys = KeyState(secret_keys(secrets))
        self._key_address = Address(key_set_url or f"{base}/.well-known/jwks.json", ssl_context)
        self._known = KnownTokens(cache_size) if cache_size > 0 else None
        self._feed = None if without_revocations else FeedState(max_staleness, on_stale, self._logger)
        self._feed_address = Address(revocations_url or f"{base}/api/revocations", ssl_context)
        for address in [self._key_address] + [self._feed_address] * (not without_revocations):
            if address.exposed:
                self._logger.warning(
                    "%s is fetched without TLS: an attacker on the network can change it", address.url
                )
        self._closed = False
        self._starting = threading.RLock()
        self._process = 0  # in which the background was started
        self._followers: list[KeyFollower | FeedFollower] = []
        with _forking:
            self._start()
            _alive.add(self)
        # A verifier that nobody has any more, and one at the end of the program, leaves no thread behind that works.
        weakref.finalize(self, _end_all, self._followers)

    def _start(self) -> None:
        """Start the background of this process, unless it was started."""
        with self._starting:
            if self._closed or self._process == os.getpid():
                return
            self._followers.append(KeyFollower(self._keys, self._key_address, self._clock, self._logger))
            if self._feed is not None:
                self._followers.append(FeedFollower(self._feed, self._feed_address, self._clock, self._logger))
            try:
                for follower in self._followers:
                    follower.start()
            except RuntimeError:  # there are too many threads, or the program is about to end
                _end_all(self._followers)
                self._followers.clear()
                raise
            self._process = os.getpid()

    def _check(
        self, token: str, required: tuple[Requirement, ...], max_staleness: float | None, on_stale: OnStale | None
    ) -> Token:
        """Accept a token, or raise VerifyError or Pending."""
        if not self._process:
            self._start()  # this is a child, whose parent had the background
        now = self._clock()
        known = self._recognise(token, now)
        if self._feed is not None:
            self._feed.check(known.token, known.ids, now, max_staleness, on_stale)
        if required:
            requirements.judge(required, known.token, now.wall, self._rules.leeway)
        return known.token

    def _recognise(self, text: str, now: Moment) -> Known:
        """Return a good token. It may have been verified before: then its time and its key are checked again."""

        def find(kid: str) -> Key:
            return self._keys.find(kid, now)

        known = self._known.get(text) if self._known is not None else None
        if known is not None:
            try:
                if find(known.key.id).equals(known.key):
                    self._rules.judge(known.token, now.wall)
                    return known
            except VerifyError as e:
                if e.status != 503:
                    self._forget(text)
                raise
            self._forget(text)
        token, key = self._rules.check(text, now.wall, find)
        known = Known(token, key, TokenIDs.of(token))
        if self._known is not None:
            self._known.put(text, known)
        return known

    def _forget(self, text: str) -> None:
        if self._known is not None:
            self._known.drop(text)

    def _settle(self, pending: Pending) -> None:
        """Go on after a wait. Raises VerifyError if that does not help."""
        if not pending.event.done():
            raise VerifyError(pending.code)
        if pending.kid:
            self._keys.settle(pending.kid, self._clock())

    def status(self) -> Status:
        """Return what the verifier knows at this moment."""
        if not self._process:
            self._start()
        now, feed = self._clock(), self._feed
        keys = len(self._keys.current(now))
        if feed is None:
            return Status(keys, 0, None, True)
        age = None if feed.confirmed is None else feed.confirmed.age(now)
        return Status(keys, len(feed.list), age, feed.fresh(now))

    def refusal(self, error: VerifyError) -> Answer:
        """Return the answer to a request whose token is not accepted: problem details (RFC 9457) with the status,
        and with the challenge of RFC 6750 §3 or RFC 9470 §3.
        """
        return refusal(error, self.issuer, self._resource)

    @property
    def metadata(self) -> Resource | None:
        """The metadata of the resource (RFC 9728): their path, their URL and the answer; None without resource."""
        return self._resource

    def _end(self) -> None:
        with _forking:
            _alive.discard(self)
        with self._starting:
            self._closed = True
            self._process = os.getpid()
            _end_all(self._followers)
        self._keys.close()
        if self._feed is not None:
            self._feed.tried.happen()

    def _join(self) -> None:
        end = time.monotonic() + _MAX_JOIN
        for follower in self._followers:
            follower.join(max(0.0, end - time.monotonic()))

    def _locks(self) -> list[Lock]:
        """The locks without which nothing that a child needs is changed, in the order in which they are taken."""
        known = [] if self._known is None else [self._known.lock]
        feed = [] if self._feed is None else [self._feed.lock]
        return [self._starting, self._keys.lock, *feed, *known]

    def _after_fork_in_child(self) -> None:
        """Have this process begin its own background when it first needs one. Keys, list and known tokens stay."""
        self._starting = threading.RLock()
        self._process = 0
        for follower in self._followers:
            follower.current.after_fork()
        self._followers.clear()
        for address in (self._key_address, self._feed_address):
            address.after_fork()
        self._keys.after_fork()
        if self._feed is not None:
            self._feed.after_fork()
        if self._known is not None:
            self._known.lock = threading.Lock()


class Verifier(_Base):
    """Checks access tokens in memory, for programs with threads. In the background it keeps the key set fresh and
    follows the feed of revocations. It is safe for use by many threads, and over a fork.

        with Verifier("https://auth.example.com") as verifier:
            token = verifier.verify(text, claim("ship", "acc"))
    """

    def verify(
        self,
        token: str,
        *required: Requirement,
        max_staleness: float | None = None,
        on_stale: OnStale | None = None,
    ) -> Token:
        """Accept a token that meets all requirements, or raise VerifyError.

        max_staleness and on_stale replace those of the verifier for this call.

        The network is waited for in two cases: until the first key set and the first page of the feed are there,
        and for a key that is not known yet. Either takes 10 s at most.
        """
        end = time.monotonic() + _MAX_WAIT
        while True:
            try:
                return self._check(token, required, max_staleness, on_stale)
            except Pending as pending:
                waiting = pending
            with suppress(TimeoutError):  # _settle says so
                waiting.event.result(max(0.0, end - time.monotonic()))
            self._settle(waiting)

    def close(self) -> None:
        """End what runs in the background, and return when it has ended. Calls that wait for it are refused."""
        self._end()
        self._join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncVerifier(_Base):
    """Checks access tokens in memory, for programs of asyncio. It never blocks the event loop: what is in the
    background of a Verifier is here in the same threads.

        async with AsyncVerifier("https://auth.example.com") as verifier:
            token = await verifier.verify(text, claim("ship", "acc"))
    """

    async def verify(
        self,
        token: str,
        *required: Requirement,
        max_staleness: float | None = None,
        on_stale: OnStale | None = None,
    ) -> Token:
        """Accept a token that meets all requirements, or raise VerifyError: see Verifier.verify."""
        end = time.monotonic() + _MAX_WAIT
        while True:
            try:
                return self._check(token, required, max_staleness, on_stale)
            except Pending as pending:
                waiting = pending
            woken = asyncio.wrap_future(waiting.event)
            try:
                await asyncio.wait([woken], timeout=max(0.0, end - time.monotonic()))
            finally:
                woken.cancel()  # the event itself goes on
            self._settle(waiting)

    async def close(self) -> None:
        """End what runs in the background, and return when it has ended. Calls that wait for it are refused."""
        self._end()
        await asyncio.to_thread(self._join)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _end_all(followers: list[KeyFollower | FeedFollower]) -> None:
    for follower in followers:
        follower.end()


_held: list[Lock] = []


def _before_fork() -> None:
    """Have no thread change what a child copies in the middle of a change."""
    _forking.acquire()
    for verifier in list(_alive):
        for lock in verifier._locks():
            lock.acquire()
            _held.append(lock)
    _http.openssl.acquire()
    _held.append(_http.openssl)


def _after_fork_in_parent() -> None:
    while _held:
        _held.pop().release()
    _forking.release()


def _after_fork_in_child() -> None:
    global _forking
    _forking = threading.RLock()
    _held.clear()
    _http.after_fork()
    for verifier in list(_alive):  # whether or not there was a _before_fork: uWSGI may leave it out
        verifier._after_fork_in_child()


os.register_at_fork(
    before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)
