"""The packed list knows what a plain one knows."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable

import pytest

from watchword_verify._revoked import Entries, EntryError, RevokedList, TokenIDs, digest, read_entries
from watchword_verify._token import Token, _read


def columns(rows: Iterable[tuple[bool, bytes, int, int, int]]) -> Entries:
    return Entries(1, *map(list, zip(*rows)))


def made(user: str, session: str, epoch: int = 0, iat: int = 0) -> Token:
    claims = f'{{"iss":"i","aud":"a","exp":1,"sub":"{user}","jti":"-","sid":"{session}","iat":{iat},"epoch":{epoch}}}'
    return _read("-", claims.encode())


def test_it_knows_what_a_plain_list_knows() -> None:
    chosen = random.Random(1)
    packed = RevokedList()
    expired = set[str]()
    sessions: dict[str, int] = {}
    users: dict[str, tuple[int, int, int]] = {}
    for seq in range(1, 20_000):
        name, exp = f"n{chosen.randrange(6000)}", chosen.randrange(1, 1000)
        if chosen.random() < 0.3:
            epoch, before = chosen.choice([(0, 1), (1, 0), (1, 1)])
            epoch, before = epoch * chosen.randrange(1, 9), before * chosen.randrange(1, 9)
            packed.apply(columns([(True, digest("user", name), epoch, before, exp)]))
            had = users.get(name, (0, 0, 0))
            users[name] = max(had[0], epoch), max(had[1], before), max(had[2], exp)
        else:
            packed.apply(columns([(False, digest("sid", name), 0, 0, exp)]))
            sessions[name] = max(sessions.get(name, 0), exp)
        if seq in (9000, 15000):
            for number in packed.shards:
                packed.expire(500, number)
            sessions = {name: exp for name, exp in sessions.items() if exp >= 500 or expired.add(name)}  # type: ignore[func-returns-value]
            users = {
                name: bounds for name, bounds in users.items() if bounds[2] >= 500 or expired.add(name)  # type: ignore[func-returns-value]
            }
    live = len(sessions) + len(users)
    assert live <= len(packed) < live * 8 / 7 + 100
    for name in {f"n{number}" for number in range(6100)} - expired:
        epoch, iat = chosen.randrange(10), chosen.randrange(10)
        token = made(name, name, epoch, iat)
        bounds = users.get(name, (0, 0, 0))
        assert packed.revoked(token, TokenIDs.of(token)) == (name in sessions or epoch < bounds[0] or iat < bounds[1])


def test_a_few_expired_ones_may_stay() -> None:
    """They revoke what has expired anyway, and to copy a table for one of them is not worth it."""
    packed = RevokedList()
    packed.apply(columns((False, bytes([0] * 4) + n.to_bytes(12), 0, 0, 10 + (n > 0)) for n in range(100)))
    packed.expire(11, 0)
    assert len(packed) == 100
    packed.expire(12, 0)
    assert len(packed) == 0


def test_ids_that_are_made_to_collide() -> None:
    """An id of zeros, and many that begin at one place of the table."""
    packed = RevokedList()
    ids = [n.to_bytes(1) + bytes(15) for n in range(0, 256, 64)] + [bytes(8) + n.to_bytes(8) for n in range(1, 500)]
    packed.apply(columns((False, id, 0, 0, 9) for id in ids))
    assert len(packed) == len(ids)
    token = made("-", "-")
    assert all(packed.revoked(token, TokenIDs((bytes(16), 0), ((id, int.from_bytes(id[4:8], "little")),))) for id in ids)
    assert not packed.revoked(token, TokenIDs((bytes(16), 0), ((bytes(8) + b"12345678", 0),)))


def test_readers_beside_a_writer() -> None:
    """What was revoked is revoked at each moment, whatever is added meanwhile."""
    packed, token = RevokedList(), made("user", "session", iat=5)
    packed.apply(columns([(False, digest("sid", "session"), 0, 0, 99)]))
    ids, done, wrong = TokenIDs.of(token), threading.Event(), list[int]()

    def read() -> None:
        while not done.is_set():
            if not packed.revoked(token, ids):
                wrong.append(1)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    chosen = random.Random(2)
    packed.apply(columns((n % 2 == 0, chosen.randbytes(16), n % 2 ^ 1, 0, 99) for n in range(2, 30_000)))
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


GOOD = {"seq": 1, "kind": "jti", "id": "q83vEjRWeJCrze8SNFZ4kA", "exp": 5}


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 0}, {"seq": -1}, {"seq": 1.0}, {"seq": True}, {"seq": "1"}, {"seq": 1 << 63}, {"seq": None},
        {"exp": 0}, {"exp": 1.5}, {"exp": 1 << 70}, {"kind": "client"}, {"kind": ["jti"]}, {"kind": None},
        {"id": "q83vEjRWeJCrze8SNFZ4kB"}, {"id": "q83vEjRWeJCrze8SNFZ4kA=="}, {"id": "q83v"}, {"id": 5}, {"id": None},
        {"id": "q83vEjRWeJCrze8SNFZ4k\u00e4"}, {"epoch": 1}, {"kind": "user"}, {"kind": "user", "epoch": -1},
    ],
)  # fmt: skip
def test_entries_that_are_not_understood(change: dict[str, object]) -> None:
    """Not alone, and not among good ones: of a page, all are read or none."""
    assert read_entries([GOOD, {**GOOD, "seq": 2}])[:3] == (2, [False] * 2, [bytes.fromhex("abcdef1234567890abcdef1234567890")] * 2)
    wrong: list[list[object]] = [[{**GOOD, **change}], [GOOD, {**GOOD, **change}, GOOD], [GOOD, [change]]]
    for listed in wrong:
        with pytest.raises(EntryError):
            read_entries(listed)
