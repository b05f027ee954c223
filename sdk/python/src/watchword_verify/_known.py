"""Tokens that were verified before."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from ._keys import Key
from ._revoked import TokenIDs
from ._token import Token

# How many characters of a token count as one token. A longer one counts as several, so that the memory is bounded
# whatever claims tokens have.
_ORDINARY = 2048


@dataclass(frozen=True, slots=True)
class Known:
    """A token that was verified, by which key, and the ids by which it may be revoked."""

    token: Token
    key: Key
    ids: TokenIDs


class KnownTokens:
    """A bounded memory of good tokens, by their whole text. Only good ones are kept, so that nobody can fill the
    memory without valid tokens.

    It forgets by generations. When the young one is full it becomes the old one, and the former old one is dropped.
    A token that is found in the old one moves to the young one.
    """

    def __init__(self, size: int) -> None:
        self._limit = max(1, size // 2)
        self._young: dict[str, Known] = {}
        self._old: dict[str, Known] = {}
        self._size = 0  # of the young generation, in ordinary tokens
        self.lock = threading.Lock()  # held while a generation changes; to look something up needs none

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, text: str) -> Known | None:
        known = self._young.get(text)
        if known is None and (known := self._old.get(text)) is not None:
            self.put(text, known)
        return known

    def put(self, text: str, known: Known) -> None:
        with self.lock:
            self._drop(text)
            if self._size >= self._limit:
                self._old, self._young, self._size = self._young, {}, 0
            self._young[text] = known
            self._size += _weight(text)

    def drop(self, text: str) -> None:
        with self.lock:
            self._drop(text)

    def _drop(self, text: str) -> None:
        self._old.pop(text, None)
        if self._young.pop(text, None) is not None:
            self._size -= _weight(text)


def _weight(text: str) -> int:
    return 1 + len(text) // _ORDINARY
