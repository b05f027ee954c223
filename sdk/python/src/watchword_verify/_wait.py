"""Waiting for what the background does."""

from __future__ import annotations

from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Protocol


class Lock(Protocol):
    """A lock, of threading."""

    def acquire(self) -> bool: ...

    def release(self) -> None: ...


class Event(Future[None]):
    """An event that happens once, which a thread or an event loop can wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.set_running_or_notify_cancel()  # from now on, nobody who waits can cancel it for the others

    def happen(self) -> None:
        """Wake all who wait. It does no harm to call it twice."""
        with suppress(InvalidStateError):
            self.set_result(None)


class Wake:
    """Wakes a thread. Unlike threading.Event it may be used in a signal handler that interrupts its use."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[None] = SimpleQueue()

    def set(self) -> None:
        """Wake the thread, or have its next wait end at once."""
        self._queue.put(None)

    def clear(self) -> None:
        """Forget that it was set."""
        with suppress(Empty):
            while True:
                self._queue.get_nowait()

    def wait(self, timeout: float) -> None:
        """Wait until it is set, for so many seconds at most."""
        with suppress(Empty):
            self._queue.get(timeout=timeout)


class Pending(Exception):
    """An answer cannot be given before an event. The caller waits for it and asks again."""

    def __init__(self, event: Event, code: str, kid: str = "") -> None:
        super().__init__(code)
        self.event = event
        self.code = code
        """The code of the error if the wait takes too long."""
        self.kid = kid
        """The kid because of which a key set is fetched; empty: another wait."""
