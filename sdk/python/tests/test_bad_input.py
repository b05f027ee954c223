"""A server that lies, sends garbage, or never comes to an end."""

from __future__ import annotations

import logging
import resource
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from issuer import Handler, Issuer, until

from watchword_verify import Moment, Verifier, VerifyError, _http
from watchword_verify._feed import FeedState
from watchword_verify._headers import Headers
from watchword_verify._http import Address, Current, Limits
from watchword_verify._keystate import FetchError
from watchword_verify._strict import decode_base64, decode_object, encode_base64

LOGGER = logging.getLogger("tests")
JSON = Headers([("Content-Type", "application/json")])


def code(verifier: Verifier, token: str) -> str:
    try:
        verifier.verify(token)
    except VerifyError as e:
        return e.code
    return ""


def endless(piece: bytes, total: int) -> Callable[[Handler], None]:
    """Answer with many bytes."""

    def answer(handler: Handler) -> None:
        streams = handler.headers["Accept"] == "text/event-stream"
        handler.begin("text/event-stream" if streams else "application/json")
        for _ in range(total // len(piece)):
            handler.wfile.write(piece)

    return answer


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


HUNDRED_MB = 100_000_000


@pytest.mark.parametrize(
    "what, piece",
    [
        ("keys", b" " * 65536), ("keys", b"[" * 65536),
        ("pages", b" " * 65536), ("pages", b"[" * 65536), ("pages", b'{"a":' * 13000),
        ("stream", b" " * 65536), ("stream", b"data: x\n" * 8192),
    ],
)  # fmt: skip
def test_a_hundred_megabytes(issuer: Issuer, what: str, piece: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """An answer is given up where its bound is; the memory stays bounded."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        token = issuer.token()
        assert code(verifier, token) == ""
        issuer.wait_for_request("streaming")
        before = resident()
        issuer.faults[what] = endless(piece, HUNDRED_MB)
        verifier._keys.wake.set()
        issuer.cut_streams()
        until(lambda: any("out of reach" in record.message for record in caplog.records))
        assert resident() - before < 90e6
        assert code(verifier, token) == ""


@pytest.mark.parametrize(
    "body",
    [
        b'{"entries":[' + b"{}," * 5_000_000 + b"{}]}",
        b"[" * (16 << 20),
        b'{"log":"' + b"x" * (17 << 20) + b'"}',
        b'{"log":' + b"9" * 5000 + b"}",
        b'{"log":NaN}',
        b"\xff\xfe{\x00}\x00",
        b"",
        b"null",
        b"[]",
    ],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_pages_that_are_no_pages(body: bytes) -> None:
    feed = FeedState(10, "refuse", LOGGER)
    with pytest.raises(FetchError):
        feed.page_answered(Moment(0, 0), Moment(0, 0), 200, JSON, body)
    assert feed.confirmed is None and not len(feed.list)


@pytest.mark.parametrize("piece", [b"{},", b"[", b"1,", b'{"a":'])
def test_a_page_that_would_be_many_objects(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before it is read: its objects would take a hundred times its length."""
    monkeypatch.setattr("watchword_verify._feed._object", None)
    feed = FeedState(10, "refuse", LOGGER)
    with pytest.raises(FetchError, match="values"):
        feed.page_answered(Moment(0, 0), Moment(0, 0), 200, JSON, piece * ((1 << 19) + 1))


def test_a_line_that_never_ends(issuer: Issuer) -> None:
    """The stream is given up, whether its bytes come fast or one by one, and pages are read."""
    dripping = threading.Event()

    def drip(handler: Handler) -> None:
        handler.begin("text/event-stream")
        dripping.set()
        while not issuer.ended:
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    issuer.faults["stream"] = drip
    with Verifier(issuer.url, max_staleness=3) as verifier:
        token = issuer.token()
        until(lambda: code(verifier, token) == "")
        assert dripping.wait(30)
        issuer.revoke("jti", "token-1")
        until(lambda: code(verifier, token) == "token_revoked")


@pytest.mark.parametrize("part", ["header", "body"])
def test_an_answer_that_drips(issuer: Issuer, part: str) -> None:
    """A whole answer has a bound in time, and not only each of its bytes."""

    def drip(handler: Handler) -> None:
        if part == "body":
            handler.begin("application/json")
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not issuer.ended:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.02)

    issuer.faults["pages"] = drip
    address = Address(issuer.url + "/api/revocations")
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        with address.open("after=0", {"Accept": "application/json"}, Limits(0.3, 0.3), Current()) as answer:
            answer.read(1000)
    assert time.monotonic() - begun < 10


def test_an_address_of_a_family_that_the_machine_lacks(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host has an address of IPv6, and the container has none: the other address is used."""
    found = socket.getaddrinfo

    def more(*args: Any, **options: Any) -> list[Any]:
        return [(12345, socket.SOCK_STREAM, 6, "", ("::1", 1)), *found(*args, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", more)
    with Verifier(issuer.url, max_staleness=60) as verifier:
        assert code(verifier, issuer.token()) == ""


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_close_ends_what_never_answers(scheme: str) -> None:
    """A server accepts connections and is silent, also in the middle of the TLS handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        verifier = Verifier(url, max_staleness=3600)
        connections = [listener.accept()[0] for _ in range(2)]
        if scheme == "https":
            assert all(one.recv(1) == b"\x16" for one in connections)  # the client is in its handshake
        begun = time.monotonic()
        verifier.close()
        assert time.monotonic() - begun < 4  # each answer had 5 s
        assert not [t for t in threading.enumerate() if t.name.startswith("watchword-")]
        for one in connections:
            one.close()


def test_an_answer_is_asked_for_without_encoding(issuer: Issuer) -> None:
    """A compressed answer may be a bomb, and none is expected."""
    seen, asked = list[str](), threading.Event()

    def look(handler: Handler) -> None:
        seen.extend(handler.headers.get_all("Accept-Encoding", []))
        asked.set()

    issuer.faults["keys"] = look
    with Verifier(issuer.url, max_staleness=60):
        assert asked.wait(30)
    assert seen == ["identity"]


def lie(**changes: Any) -> Callable[[Issuer], dict[str, Any]]:
    return lambda issuer: {**issuer.page(0), **changes}


def at(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    "page, result",
    [
        (lie(as_of=at(365)), ""),  # the clock of the server does not matter
        (lie(as_of=at(-365)), ""),
        (lie(as_of="0001-01-01T00:00:00Z"), "revocation_stale"),
        (lie(as_of="yesterday"), "revocation_stale"),
        (lie(as_of="2026-01-15"), "revocation_stale"),
        (lie(as_of=5), "revocation_stale"),
        (lie(age_ms=-1), "revocation_stale"),
        (lie(age_ms=60_000), "revocation_stale"),
        (lie(age_ms=1 << 62), "revocation_stale"),
        (lie(age_ms=1 << 64), "revocation_stale"),
        (lie(waited_ms=1 << 40), ""),  # then the moment of the request counts
        (lie(waited_ms=-5), ""),
        (lie(version=2), "revocation_stale"),
        (lie(version="1"), "revocation_stale"),
        (lie(log=""), "revocation_stale"),
        (lie(more="no"), "revocation_stale"),
        (lie(more=True), "revocation_stale"),
        (lie(entries={}), "revocation_stale"),
        (lie(entries=[{"seq": 1, "kind": "client", "id": "q83vEjRWeJCrze8SNFZ4kA", "exp": 5}]), "revocation_stale"),
    ],
)
def test_a_server_that_lies(issuer: Issuer, page: Callable[[Issuer], dict[str, Any]], result: str) -> None:
    issuer.faults["pages"] = lambda handler: handler.answer("application/json", page(issuer))
    issuer.faults["stream"] = lambda handler: handler.answer("application/json", b"", 503)
    with Verifier(issuer.url, max_staleness=60) as verifier:
        assert code(verifier, issuer.token()) == result


def test_a_confirmation_never_lies_in_the_future() -> None:
    """Whatever a page says of the server's time, it confirms no later moment than that of its answer."""
    for changes in ({"waited_ms": 40}, {"waited_ms": 90}, {"waited_ms": 10**9}, {"as_of": "9999-12-31T23:59:59Z"}):
        feed = FeedState(10, "refuse", LOGGER)
        page = '{"log":"l","as_of":"2026-01-15T08:00:00Z","age_ms":0'
        page += "".join(f',"{name}":{value if type(value) is int else repr(value)}' for name, value in changes.items())
        body = page.replace("'", '"').replace('"as_of":"2026-01-15T08:00:00Z",', "" if "as_of" in changes else '"as_of":"2026-01-15T08:00:00Z",')
        feed.page_answered(Moment(1, 101), Moment(1.05, 101.05), 200, JSON, (body + "}").encode())
        assert feed.confirmed is not None and 1 <= feed.confirmed.mono <= 1.05
    stream = feed.stream(Moment(2, 102))
    stream.handle("resume", b'{"log":"l","as_of":"2026-01-15T08:00:00Z"}', Moment(2, 102))
    with pytest.raises(FetchError):
        stream.handle("head", b'{"log":"l","as_of":"2020-01-15T08:00:00Z"}', Moment(3, 103))
    stream.handle("head", b'{"log":"l","as_of":"2030-01-15T08:00:00Z"}', Moment(4, 104))
    assert feed.confirmed is not None and feed.confirmed.mono <= 4


def test_a_page_that_comes_again() -> None:
    """A cache that sends no Age answers with it: it confirms no more than the first time."""
    feed = FeedState(10, "refuse", LOGGER)
    pages = [b'{"log":"l","as_of":"2026-01-15T08:00:0%d.5Z","age_ms":0}' % second for second in range(3)]
    for second, page, confirmed in ((1, 0, 1), (2, 0, 1), (3, 1, 3), (4, 0, 3), (5, 1, 3), (6, 2, 6)):
        feed.page_answered(Moment(second, second), Moment(second, second), 200, JSON, pages[page])
        assert feed.confirmed == Moment(confirmed, confirmed)


def test_redirects_are_not_followed(issuer: Issuer) -> None:
    with Issuer() as other:
        for what in ("keys", "pages"):
            issuer.faults[what] = lambda handler: handler.answer(
                "application/json", b"", 307, Location=other.url + handler.path
            )
        with Verifier(issuer.url, max_staleness=60) as verifier:
            assert code(verifier, issuer.token()) == "key_set_unavailable"
            assert not verifier.status().fresh
        assert not other.requests


def test_a_log_that_would_be_a_header(issuer: Issuer) -> None:
    """The name of a log is a header of the next request."""
    issuer.log = "a\r\nX-Forged: 1"
    with Verifier(issuer.url, max_staleness=60) as verifier:
        token = issuer.token()
        assert code(verifier, token) == ""
        issuer.wait_for_request("pages", 2)  # a stream could not be asked for
        assert "stream" not in issuer.requests
        assert code(verifier, token) == ""


class Proxy:
    """A proxy for http and https."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://user:p%40ss@127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(65536)
            self.requests.append(head.decode())
            method, target, _ = head.decode().split(" ", 2)
            if method == "CONNECT":
                name = target
            else:
                name = target.split("/")[2]
            port = int(name.rpartition(":")[2])
            server = socket.create_connection(("127.0.0.1", port))
            self._sockets.append(server)
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = "/" + target.split("/", 3)[3]
                server.sendall(head.replace(target.encode(), path.encode(), 1))
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            _pump(server, client)
        except OSError:
            pass

    def close(self) -> None:
        for one in self._sockets:
            one.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    running = Proxy()
    yield running
    running.close()


def test_a_proxy_for_http(issuer: Issuer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy.url)
    port = issuer.url.rpartition(":")[2]
    url = f"http://issuer.invalid:{port}"  # a name that only the proxy knows
    with Verifier(
        issuer.url, max_staleness=60, key_set_url=f"{url}/jwks.json", revocations_url=f"{url}/api/revocations"
    ) as verifier:
        token = issuer.token()
        assert code(verifier, token) == ""
        issuer.wait_for_request("streaming")
    assert proxy.requests[0].startswith("GET http://issuer.invalid:")
    assert all("Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in one for one in proxy.requests)
    count = len(proxy.requests)
    with Verifier(issuer.url, max_staleness=60) as verifier:  # the machine itself is asked without a proxy
        assert code(verifier, token) == ""
    monkeypatch.setenv("no_proxy", ".invalid")
    with Verifier(issuer.url, key_set_url=f"{url}/jwks.json") as verifier:
        assert code(verifier, token) == "key_set_unavailable"
    assert len(proxy.requests) == count
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:1")
    with pytest.raises(ValueError, match="proxy"):
        Verifier("http://issuer.invalid")


def test_tls_and_its_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The certificate is checked, also behind a proxy, which learns nothing but the name of the host."""
    certificate = _certificate(tmp_path, "issuer.invalid")
    with Issuer() as issuer:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        issuer.server.socket = context.wrap_socket(issuer.server.socket, server_side=True, do_handshake_on_connect=False)
        monkeypatch.setenv("https_proxy", proxy.url)
        port = issuer.url.rpartition(":")[2]
        trusting = ssl.create_default_context(cafile=str(certificate))
        held = set()

        class Observed(ssl.SSLSocket):
            def do_handshake(self, block: bool = False) -> None:
                held.add((_http.openssl.locked(), self.gettimeout()))
                super().do_handshake(block)

        trusting.sslsocket_class = Observed
        results = []
        for host, given in (("issuer.invalid", trusting), ("other.invalid", trusting), ("issuer.invalid", None)):
            url = f"https://{host}:{port}"
            options = {"key_set_url": f"{url}/jwks.json", "revocations_url": f"{url}/api/revocations"}
            with Verifier(issuer.url, max_staleness=60, ssl_context=given, **options) as verifier:  # type: ignore[arg-type]
                results.append(code(verifier, issuer.token()))
        assert results == ["", "key_set_unavailable", "key_set_unavailable"]
        assert held == {(True, 0.0)}  # a fork waits for each step of a handshake, and no step waits for the server
        assert all(one.startswith("CONNECT ") for one in proxy.requests)
        assert "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n" in proxy.requests[0]


def _certificate(directory: Path, host: str) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = directory / "certificate.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


@pytest.mark.parametrize(
    "text",
    ["A", "AB==", "AB\n", " AB", "A+B", "A/B", "AAA=", "AB.", "Ａ", "AB\0", "A\u212a"],
)  # fmt: skip
def test_base64_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError):
        decode_base64(text)


def test_json_is_read_in_one_way() -> None:
    assert decode_object(b' {"a":[1,{"b":null}]}\n') == {"a": [1, {"b": None}]}
    assert decode_object(b'{"a":"\\ud83d\\ude00","b":["\\ud800"]}') == {"a": "😀", "b": ["\ufffd"]}
    assert decode_object(b'{"a":' + b"9" * 5000 + b"}") == {"a": float("inf")}
    for bad in (
        b'{"a":1,"a":1}', b'{"x":{"a":1,"a":2}}', b'{"\\ud800":1,"\\ud801":2}', b'{"a":NaN}', b'{"a":-Infinity}',
        b'{"a":01}', b'{"a":1,}', b"{'a':1}", b'{"a":"\x01"}', b'{"a":1}{}', b"\xef\xbb\xbf{}", b'{"a":"\xff"}',
        b"[1]", b"", b'{"a":' * 18 + b"1" + b"}" * 18, b'{"a":' + b"[" * 17 + b"]" * 17 + b"}", b"[" * 100_000,
    ):  # fmt: skip
        with pytest.raises(ValueError):
            decode_object(bad)
    assert decode_object(b'{"a":' * 17 + b"1" + b"}" * 17)


def test_a_long_number_and_deep_arrays(issuer: Issuer) -> None:
    """The one hides the other from the first reading. Nobody has signed the header of a token."""
    header = encode_base64(b'{"a":' + b"1" * 4301 + b',"b":' + b"[" * 1700)
    with Verifier(issuer.url, max_staleness=60) as verifier:
        assert code(verifier, f"{header}.e30.AA") == "token_malformed"
