"""Resource servers for tests, by sdk/python: one for each issuer that is named. What each answers stands in package
servers.
"""

import argparse
import json
import logging
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from watchword_verify import Verifier, VerifyError, bearer, claim

CHECK_EVERY = 0.005
"""How often /refused checks its token, in seconds."""

ROUTES = {
    "/any": lambda verifier, token: verifier.verify(token),
    "/ship": lambda verifier, token: verifier.verify(token, claim("ship", "acc")),
    "/open": lambda verifier, token: verifier.verify(token, on_stale="accept"),
}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], verifier: Verifier) -> None:
        super().__init__(address, Handler)
        self.verifier = verifier


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # an answer is sent at once
    server: Server

    def do_GET(self) -> None:
        verifier = self.server.verifier
        if self.path == "/status":
            status = verifier.status()
            age = None if status.confirmed_age is None else round(status.confirmed_age * 1000)
            self.answer({"keys": status.keys, "revocations": status.revocations, "confirmed_age_ms": age, "fresh": status.fresh})
            return
        try:
            token = bearer(self.headers.get_all("Authorization", []))
            if self.path == "/refused":
                self.answer(self.refused(token))
            else:
                self.answer(ROUTES[self.path](verifier, token).claims)
        except VerifyError as e:
            refusal = verifier.refusal(e)
            self.send(refusal.status, refusal.headers, refusal.body)

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer([self.code(token) for token in text.split()])

    def refused(self, token: str) -> str:
        while True:
            code = self.code(token)
            if code not in ("", "revocation_stale"):
                return code
            time.sleep(CHECK_EVERY)

    def code(self, token: str) -> str:
        """Return that of a refused token, or nothing."""
        try:
            self.server.verifier.verify(token)
        except VerifyError as e:
            return e.code
        return ""

    def answer(self, value: object) -> None:
        self.send(200, [("Content-Type", "application/json")], json.dumps(value).encode())

    def send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(body)))]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--issuer", action="append", required=True)
    parser.add_argument("--audience")
    parser.add_argument("--max-staleness", type=float, default=10)
    parser.add_argument("--listen", default="127.0.0.1:0")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    host, _, port = options.listen.rpartition(":")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # for this thread, and for those that it starts
    verifiers = []
    for issuer in options.issuer:
        verifier = Verifier(issuer, audience=options.audience, max_staleness=options.max_staleness)
        verifiers.append(verifier)
        server = Server((host, int(port)), verifier)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print("listening on {}:{}".format(*server.server_address), flush=True)
    signal.sigwait({signal.SIGTERM})
    for verifier in verifiers:
        verifier.close()


if __name__ == "__main__":
    main()
