"""Measures a verifier and prints JSON: python bench.py [--entries N]

read_cpu_s is the time of the processor that the entries take. Other times are microseconds: medians of rounds, each
the mean of many calls. The first time of a token is compared with PyJWT's bare jwt.decode of the same tokens, round by
round in turn, because the speed of a machine changes.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt

sys.path[:0] = [str(Path(__file__).parent / "tests"), str(Path(__file__).parent / "src")]

from issuer import Issuer  # noqa: E402

from watchword_verify import Moment, Verifier, claim  # noqa: E402
from watchword_verify._feed import PAGE_LIMIT, FeedState  # noqa: E402
from watchword_verify._headers import Headers  # noqa: E402
from watchword_verify._strict import encode_base64  # noqa: E402

ROUNDS = 15


def per_call(call: Callable[[str], object], tokens: list[str]) -> float:
    """Return the mean time of a call, in microseconds."""
    begun = time.perf_counter()
    for token in tokens:
        call(token)
    return (time.perf_counter() - begun) / len(tokens) * 1e6


def times() -> dict[str, float]:
    """Measure checks of tokens of ES256 while the feed is followed."""
    with Issuer() as issuer, Verifier(issuer.url, cache_size=100_000) as verifier:
        issuer.revoke("jti", "another")
        repeated = issuer.token()
        verifier.verify(repeated)
        key = issuer.keys["key-1"].public_key()
        again, first, bare, ratios = [], [], [], []

        def decode(token: str) -> Any:
            return jwt.decode(token, key, ["ES256"], audience=issuer.url, issuer=issuer.url)

        for _ in range(ROUNDS):
            fresh = [issuer.token() for _ in range(100)]
            again.append(per_call(lambda token: verifier.verify(token, claim("ship", "acc")), [repeated] * 3000))
            bare.append(per_call(decode, fresh))
            first.append(per_call(verifier.verify, fresh))
            ratios.append(first[-1] / bare[-1])
        return {
            "repeated_us": round(statistics.median(again), 1),
            "first_us": round(statistics.median(first), 1),
            "pyjwt_decode_us": round(statistics.median(bare), 1),
            "first_to_pyjwt": round(statistics.median(ratios), 2),
        }


def page(first: int, count: int, total: int) -> bytes:
    """Make a page of the feed."""
    entries: list[dict[str, Any]] = [
        {"seq": seq, "kind": "jti", "id": encode_base64(secrets.token_bytes(16)), "exp": 4_000_000_000}
        for seq in range(first, first + count)
    ]
    members = {"log": "log", "head": total, "as_of": "2026-01-15T08:00:00Z", "age_ms": 0, "more": first + count <= total}
    return json.dumps({**members, "snapshot": False, "entries": entries}).encode()


def resident() -> int:
    """Return the memory of the process that is in use, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("there is no VmRSS")


def memory(total: int) -> dict[str, float]:
    """Measure by how much the process grows with so many entries, and how long they take to read."""
    import logging

    headers = Headers([("Content-Type", "application/json")])
    now = Moment(0, 1_800_000_000)
    warm = FeedState(10, "refuse", logging.getLogger())  # what the first page costs, every program pays
    warm.page_answered(now, now, 200, headers, page(1, PAGE_LIMIT, PAGE_LIMIT))
    del warm
    feed, seconds, before, most = FeedState(10, "refuse", logging.getLogger()), 0.0, resident(), 0
    for first in range(1, total + 1, PAGE_LIMIT):
        body = page(first, min(PAGE_LIMIT, total + 1 - first), total)
        begun = time.process_time()  # the machine may do other work as well
        feed.page_answered(now, now, 200, headers, body)
        seconds += time.process_time() - begun
        del body
        most = max(most, resident())
    assert len(feed.list) == total
    return {
        "entries": total,
        "grown_mb": round((resident() - before) / 1e6, 1),
        "grown_most_mb": round((most - before) / 1e6, 1),
        "read_cpu_s": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=1_000_000)
    print(json.dumps({**memory(parser.parse_args().entries), **times()}))


if __name__ == "__main__":
    main()
