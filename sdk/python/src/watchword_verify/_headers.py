"""The headers of an answer that say how old it is and how long it is fresh (RFC 9111)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_MOST = 1 << 30


class Headers:
    """The headers of an answer, by name without regard to case."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        self._all: dict[str, list[str]] = {}
        for name, value in pairs:
            self._all.setdefault(name.lower(), []).append(value.strip(" \t"))

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Headers:
        return cls(headers.items())

    def get(self, name: str) -> str:
        """Return the first header of the name, or the empty string."""
        return self._all.get(name.lower(), [""])[0]

    def get_all(self, name: str) -> list[str]:
        return self._all.get(name.lower(), [])

    @property
    def media_type(self) -> str:
        """The content type without its parameters."""
        return self.get("Content-Type").partition(";")[0].strip(" \t").lower()

    @property
    def age(self) -> int:
        """For how many seconds a cache on the way has held the answer (RFC 9111 §5.1)."""
        return min(max(_integer(self.get("Age")) or 0, 0), _MOST)

    def freshness(self, *, default: float, most: float) -> float | None:
        """Return for how many seconds the answer is fresh (RFC 9111 §4.2): None if it must not be
        stored, zero or less if it is too old already.
        """
        life = default
        for directive in ",".join(self.get_all("Cache-Control")).split(","):
            name, _, value = directive.strip().lower().partition("=")
            if name in ("no-store", "no-cache"):
                return None
            seconds = _integer(value.strip('"'))
            if name == "max-age" and seconds is not None and seconds >= 0:
                life = min(seconds, most)
        return life - self.age


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= 20 and _INTEGER.fullmatch(text) else None
