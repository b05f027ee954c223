"""Events of a text/event-stream (WHATWG HTML, §9.2), read without I/O."""

from __future__ import annotations

from collections.abc import Iterator

MAX_EVENT = 64 << 10
"""The greatest length of a line, and of the data of an event, in bytes. Those of the server have a few
hundred."""


class EventError(Exception):
    """A line or an event is too long."""


class EventReader:
    """Makes events of chunks of bytes. An event's id is not needed, since entries carry their number."""

    def __init__(self) -> None:
        self._rest = b""
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the data of each event that the chunk completes. Raises EventError."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if len(line) > MAX_EVENT:
                raise EventError("a line of the stream is too long")
            line = line.removesuffix(b"\r")
            if line:
                self._take(line)
                continue
            name, data = self._name.decode("utf-8", "replace"), b"\n".join(self._data)
            self._name, self._data, self._size = b"", [], 0
            if data:
                yield name, data
        if len(self._rest) > MAX_EVENT:
            raise EventError("a line of the stream is too long")

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value
        elif name == b"data":
            self._size += len(value) + 1
            if self._size > MAX_EVENT:
                raise EventError("an event of the stream is too long")
            self._data.append(value)
