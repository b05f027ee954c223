"""An issuer of tokens for tests: keys, a feed, and the faults of both."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from watchword_verify._revoked import digest
from watchword_verify._strict import encode_base64

Fault = Callable[["Handler"], None]
"""Answers a request in another way."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        issuer = self.server.issuer
        path = urlsplit(self.path).path
        streams = self.headers["Accept"] == "text/event-stream"
        what = "keys" if path.endswith("jwks.json") else "stream" if streams else "pages"
        with issuer.changed:
            issuer.requests.append(what)
            issuer.paths.append(self.path)
            issuer.changed.notify_all()
            fault = issuer.faults.get(what)
            self.cuts = issuer.cuts
        self.close_connection = True
        with suppress(OSError):  # the client has gone
            if fault is not None:
                fault(self)
            elif what == "keys":
                self.answer("application/jwk-set+json", issuer.key_set())
            elif what == "pages":
                after = int(parse_qs(urlsplit(self.path).query)["after"][0])
                self.answer("application/json", issuer.page(after))
            else:
                self.stream()

    def answer(self, media_type: str, value: Any, status: int = 200, **headers: str) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.begin(media_type, status, **{"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def begin(self, media_type: str, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, header in {"Content-Type": media_type, **headers}.items():
            self.send_header(name, header)
        self.end_headers()

    def stream(self) -> None:
        issuer = self.server.issuer
        self.begin("text/event-stream")
        log, _, sent = self.headers["Last-Event-ID"].rpartition(":")
        known = int(sent)
        self.event("resume" if log == issuer.log else "snapshot", issuer.head())
        first = True
        while True:
            with issuer.changed:
                issuer.changed.wait_for(
                    lambda: first or len(issuer.entries) > known or issuer.cuts > self.cuts or issuer.ended, 0.5
                )
                if issuer.cuts > self.cuts or issuer.ended:
                    return
                entries = issuer.entries[known:]
            for entry in entries:
                self.event("revocation", entry)
            known += len(entries)
            self.event("head", issuer.head())
            if first:
                with issuer.changed:
                    issuer.requests.append("streaming")  # from now on a stream that ends was useful
                    issuer.changed.notify_all()
            first = False

    def event(self, name: str, data: Any) -> None:
        self.wfile.write(f"event: {name}\ndata: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    issuer: Issuer


class Issuer:
    """Issues and revokes tokens."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.entries: list[dict[str, Any]] = []
        self.log = "log-1"
        self.requests: list[str] = []
        self.paths: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.cuts = 0
        self.ended = False
        self.keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.add_key("key-1")
        self._tokens = 0
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.issuer = self
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self.changed:
            self.ended = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add_key(self, kid: str) -> None:
        self.keys[kid] = ec.generate_private_key(ec.SECP256R1())

    def key_set(self) -> dict[str, Any]:
        return {
            "keys": [
                {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid, "alg": "ES256", "use": "sig"}
                for kid, key in self.keys.items()
            ]
        }

    def token(self, kid: str = "key-1", **claims: Any) -> str:
        """Issue a token, whose signature is in the form with the lesser s."""
        self._tokens += 1
        now = time.time()
        payload = {
            "iss": self.url, "aud": self.url, "sub": "user-1", "jti": f"token-{self._tokens}", "sid": "session-1",
            "iat": int(now), "exp": int(now) + 600, "ship": "acc", **claims,
        }  # fmt: skip
        while True:
            compact = jwt.encode(payload, self.keys[kid], "ES256", {"typ": "at+jwt", "kid": kid})
            if jwt.utils.base64url_decode(compact.rpartition(".")[2])[32] < 0x7F:
                return compact

    def revoke(self, kind: str, value: str, **bounds: int) -> None:
        entry = {"kind": kind, "id": encode_base64(digest(kind, value)), "exp": int(time.time()) + 600, **bounds}
        with self.changed:
            self.entries.append({"seq": len(self.entries) + 1, **entry})
            self.changed.notify_all()

    def head(self) -> dict[str, Any]:
        as_of = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return {"version": 1, "log": self.log, "head": len(self.entries), "as_of": as_of, "age_ms": 0}

    def page(self, after: int) -> dict[str, Any]:
        return {**self.head(), "heartbeat_ms": 500, "snapshot": False, "entries": self.entries[after:], "more": False}

    def wait_for_request(self, what: str, count: int = 1) -> None:
        """Wait until there were so many requests."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.requests.count(what) >= count, 30), self.requests

    def cut_streams(self) -> None:
        with self.changed:
            self.cuts += 1
            self.changed.notify_all()


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come to that"
        time.sleep(0.005)
