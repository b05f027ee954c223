"""What is known to be revoked, packed."""

from __future__ import annotations

import hashlib
import math
import struct
from array import array
from collections.abc import Iterator
from typing import Any, NamedTuple

from ._strict import decode_base64
from ._token import Token

KINDS = ("kid", "user", "sid", "jti")
"""What an entry may revoke: all tokens of a key, a user's up to an epoch or a moment, those of a session,
one token."""

_SHARDS = 64  # a power of two
_MAX_INT64 = (1 << 63) - 1


class EntryError(ValueError):
    """An entry is not one that this reader understands, so it does not know what is revoked."""


class Entries(NamedTuple):
    """Entries of the feed, by columns: so a page of them is read several times faster than one by one."""

    last: int
    """The number of the last one; 0: there is none."""
    users: list[bool]
    """Whether it is one of a user."""
    ids: list[bytes]
    """16 bytes each: see digest."""
    epochs: list[int]
    befores: list[int]
    """issued_before, in seconds since 1970."""
    exps: list[int]
    """When the last token that it concerns has expired, in seconds since 1970."""


def digest(kind: str, value: str) -> bytes:
    """Return the id of a key, user, session or token: the first 128 bits of SHA-256 over the kind, a zero
    byte and the value.
    """
    return hashlib.sha256(f"{kind}\0{value}".encode()).digest()[:16]


def read_entries(listed: list[object]) -> Entries:
    """Read entries of the feed from their JSON, all or none. Raises EntryError."""
    if not listed:
        return Entries(0, [], [], [], [], [])
    objects = [one for one in listed if type(one) is dict]
    if len(objects) != len(listed):
        raise EntryError("an entry is not an object")
    seqs: list[Any] = [one.get("seq") for one in objects]
    exps: list[Any] = [one.get("exp") for one in objects]
    epochs, befores = [one.get("epoch", 0) for one in objects], [one.get("issued_before", 0) for one in objects]
    for least, numbers in ((1, seqs), (1, exps), (0, epochs), (0, befores)):
        if set(map(type, numbers)) != {int}:
            raise EntryError("a number of an entry is missing or not whole")
        if min(numbers) < least or max(numbers) > _MAX_INT64:
            raise EntryError("a number of an entry is out of its range")
    kinds, texts = [one.get("kind") for one in objects], [one.get("id") for one in objects]
    for kind in kinds:
        if kind not in KINDS:
            raise EntryError(f"an entry is of the unknown kind {str(kind)[:32]!r}")
    users = [kind == "user" for kind in kinds]
    if users != [epoch > 0 or before > 0 for epoch, before in zip(epochs, befores)]:
        raise EntryError("a user, and nothing else, is revoked up to an epoch or a time")
    return Entries(seqs[-1], users, _decode_ids(texts), epochs, befores, exps)


def _decode_ids(texts: list[Any]) -> list[bytes]:
    """Decode ids, each the one base64url of 16 bytes without padding. Raises EntryError.

    22 characters have four bits more than 16 bytes, which are zero. With AA, twelve zeros more, they are 18 whole
    bytes, so that all are decoded at once.
    """
    wrong = "the id of an entry is not the base64url of 16 bytes"
    if set(map(type, texts)) != {str} or set(map(len, texts)) != {22}:
        raise EntryError(wrong)
    joined = "".join([text + "AA" for text in texts])
    try:
        data = decode_base64(joined)
    except ValueError as e:
        raise EntryError(wrong) from e
    if any(data[16::18]):
        raise EntryError(wrong)
    return [data[at : at + 16] for at in range(0, len(data), 18)]


class TokenIDs(NamedTuple):
    """The ids by which a token may be revoked, each with its place: see _places."""

    user: tuple[bytes, int]
    others: tuple[tuple[bytes, int], ...]

    @classmethod
    def of(cls, token: Token) -> TokenIDs:
        named = (("kid", token.key_id), ("sid", token.session_id), ("jti", token.id))
        return cls(_placed("user", token.subject), tuple(_placed(kind, value) for kind, value in named if value))


def _placed(kind: str, value: str) -> tuple[bytes, int]:
    id = digest(kind, value)
    return id, int.from_bytes(id[4:8], "little")


class _Shard:
    """A hash table with linear probing over packed records. A place of slots holds the position of a record
    plus one, or 0 if it is free; at most half are in use, and their number is a power of two.
    """

    __slots__ = ("ids", "exps", "epochs", "befores", "slots")

    def __init__(self) -> None:
        self.slots = array("I", bytes(4 * 8))
        self.ids = bytearray()  # 16 bytes each
        self.exps = array("q")
        self.epochs = array("q")  # of users alone
        self.befores = array("q")

    def find(self, id: bytes, place: int) -> int:
        """Return the position of a record, or -1 minus the slot where it would be. There is always a free one. The
        place is that of the id: see _places."""
        slots, ids = self.slots, self.ids
        mask = len(slots) - 1
        slot = place & mask
        while at := slots[slot]:
            if ids[16 * at - 16 : 16 * at] == id:
                return at - 1
            slot = (slot + 1) & mask
        return -1 - slot

    def grown(self) -> _Shard:
        """Return a copy with room for as many again."""
        fresh = _Shard()
        fresh.ids, fresh.exps, fresh.epochs, fresh.befores = self.ids[:], self.exps[:], self.epochs[:], self.befores[:]
        fresh._index()
        return fresh

    def without(self, before: int) -> _Shard:
        """Return a copy without what expired before a time, with room for as many again."""
        fresh = _Shard()
        kept = [at for at, exp in enumerate(self.exps) if exp >= before]
        fresh.ids = bytearray().join([self.ids[16 * at : 16 * at + 16] for at in kept])
        fresh.exps = array("q", [self.exps[at] for at in kept])
        if self.epochs:
            fresh.epochs = array("q", [self.epochs[at] for at in kept])
            fresh.befores = array("q", [self.befores[at] for at in kept])
        fresh._index()
        return fresh

    def _index(self) -> None:
        size = 8
        while size < 4 * len(self.exps):
            size *= 2
        self.slots = slots = array("I", bytes(4 * size))
        for at, (place,) in enumerate(_places(self.ids), 1):
            while slots[place & (size - 1)]:
                place += 1
            slots[place & (size - 1)] = at


def _places(ids: bytes | bytearray) -> Iterator[tuple[int]]:
    """Return where in a table, if that were large enough, each of the ids begins to be looked for."""
    return struct.iter_unpack("<4xI8x", ids)


class RevokedList:
    """What is known to be revoked. An entry takes 24 bytes, one of a user 40, and its place in a table 8 to 16.

    One thread changes it at a time. Others may read meanwhile, if the interpreter has a global lock: a record is
    complete before the table leads to it, a shard is replaced as a whole, and of a record only numbers change, each
    to a stronger one.
    """

    def __init__(self) -> None:
        self._users = [_Shard() for _ in range(_SHARDS)]
        self._others = [_Shard() for _ in range(_SHARDS)]
        self._any_users = self._any_others = False  # whether there ever was one

    def __len__(self) -> int:
        return sum(len(shard.exps) for shard in self._users + self._others)

    def apply(self, entries: Entries) -> None:
        """Add entries. It does no harm to add one twice, or in another order: of two entries for one user the
        stronger of each bound is kept.
        """
        _, users, ids, epochs, befores, exps = entries
        self._any_users |= True in users  # before one can be found; see revoked
        self._any_others |= False in users
        for user, id, (place,), epoch, before, exp in zip(users, ids, _places(b"".join(ids)), epochs, befores, exps):
            shards = self._users if user else self._others
            number = id[0] & (_SHARDS - 1)
            shard = shards[number]
            slot = place & (len(shard.slots) - 1)
            at = shard.find(id, place) if shard.slots[slot] else -1 - slot
            if at >= 0:
                if user:
                    shard.epochs[at] = max(shard.epochs[at], epoch)
                    shard.befores[at] = max(shard.befores[at], before)
                shard.exps[at] = max(shard.exps[at], exp)
                continue
            if 2 * len(shard.exps) + 2 > len(shard.slots):
                shard = shards[number] = shard.grown()
                at = shard.find(id, place)
            shard.ids += id
            shard.exps.append(exp)
            if user:
                shard.epochs.append(epoch)
                shard.befores.append(before)
            shard.slots[-1 - at] = len(shard.exps)  # last: from now on it is found

    def revoked(self, token: Token, ids: TokenIDs) -> bool:
        """Report whether the token is revoked."""
        if self._any_others:
            for id, place in ids.others:
                if self._others[id[0] & (_SHARDS - 1)].find(id, place) >= 0:
                    return True
        if not self._any_users:
            return False
        id, place = ids.user
        shard = self._users[id[0] & (_SHARDS - 1)]
        at = shard.find(id, place)
        return at >= 0 and (token.epoch < shard.epochs[at] or math.floor(token.issued_at) < shard.befores[at])

    def expire(self, before: int, number: int) -> None:
        """Forget the entries of one of the shards that expired before a time, in seconds since 1970."""
        for shards in (self._users, self._others):
            exps = shards[number].exps
            if 8 * sum(exp < before for exp in exps) > len(exps):  # to copy all for a few is not worth it
                shards[number] = shards[number].without(before)

    shards = range(_SHARDS)
    """The numbers of the shards, for expire."""
