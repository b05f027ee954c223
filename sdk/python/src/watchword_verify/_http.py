"""HTTP requests whose every wait is bounded, and which another thread can end.

A request is one of GET, over a connection of its own: the answer of a load balancer that has lost a replica is
then always that of another one, and there is no kept connection that may be dead. No redirect is followed: keys
come from the URL that was configured and nowhere else.
"""

from __future__ import annotations

import base64
import contextlib
import encodings.idna  # noqa: F401  a child must not import it: a thread of the parent may have held its lock
import http.client
import io
import ipaddress
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from ._headers import Headers

_AGENT = "watchword-verify"

openssl = threading.Lock()
"""Held over a fork, and by a thread that shakes hands, but not while it waits for the server. OpenSSL and the C
library have locks for that. A child would wait for ever for one that a thread of its parent had held.
"""


class Limits:
    """Until when the next bytes must have come."""

    def __init__(self, whole: float, patience: float) -> None:
        """Set both in seconds: for the whole answer, and for the bytes that come next."""
        self._end = time.monotonic() + whole
        self._silent = 0.0
        self.patience = patience
        self.progress()

    def progress(self) -> None:
        """Begin to be patient anew."""
        self._silent = time.monotonic() + self.patience

    def left(self) -> float:
        """Return how long to wait now, in seconds. Raises TimeoutError if it is over."""
        left = min(self._end, self._silent) - time.monotonic()
        if left <= 0:
            raise TimeoutError("nothing has come in time")
        return left


class Address:
    """Where requests go: a URL, and the proxy that the environment names for it."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        """Raises ValueError if the URL, or that of its proxy, is of no use."""
        parts = urlsplit(url)
        printable = all("!" <= c <= "~" for c in url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or not printable:
            raise ValueError(f"{url!r} is not an http or https URL")
        self.url = url
        self.secure = parts.scheme == "https"
        self.host = parts.hostname
        self.port = parts.port or (443 if self.secure else 80)
        self._authority = parts.netloc
        self._path = parts.path or "/"
        self._query = parts.query
        self._given = context
        self._own: ssl.SSLContext | None = None
        self._proxy = _proxy(parts.scheme, self.host)

    @property
    def exposed(self) -> bool:
        """Report whether an attacker on the network can change what is fetched."""
        return not self.secure and not is_loopback(self.host)

    def open(self, query: str, headers: Mapping[str, str], limits: Limits, current: Current) -> Answer:
        """Send a request and return its answer as soon as its headers are there. Raises OSError, ValueError or
        http.client.HTTPException.
        """
        full = self._path + "?" * bool(self._query or query) + "&".join(filter(None, (self._query, query)))
        headers = {"Host": self._authority, "User-Agent": _AGENT, "Connection": "close", **headers}
        host, port = (self.host, self.port) if self._proxy is None else self._proxy[:2]
        raw = _connect(host, port, limits, current)
        try:
            if self._proxy is not None and self._proxy[2]:
                headers = headers if self.secure else {**headers, "Proxy-Authorization": self._proxy[2]}
            if self._proxy is not None and self.secure:
                self._tunnel(raw, self._proxy[2], limits)
            elif self._proxy is not None:
                full = f"http://{self._authority}{full}"
            if self.secure:
                with openssl:
                    raw = tls = self._context().wrap_socket(
                        raw, server_hostname=self.host, do_handshake_on_connect=False
                    )
                current.hold(raw)  # which has taken the descriptor over
                _shake_hands(tls, limits)
            timed = _TimedSocket(raw, limits)
            request = http.client.HTTPConnection(self.host, self.port)
            request.sock = timed
            request.putrequest("GET", full, skip_host=True)  # it accepts no encoding but identity
            for name, value in headers.items():
                request.putheader(name, value)
            request.endheaders()
            response = http.client.HTTPResponse(timed, method="GET")  # type: ignore[arg-type]
            response.begin()
            return Answer(response, raw, limits, current)
        except BaseException:
            current.release()
            raw.close()
            raise

    def _tunnel(self, raw: socket.socket, authorization: str, limits: Limits) -> None:
        """Have the proxy connect to the host (RFC 9110 §9.3.6)."""
        name = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        lines = [f"CONNECT {name} HTTP/1.1", f"Host: {name}", f"User-Agent: {_AGENT}"]
        if authorization:
            lines.append(f"Proxy-Authorization: {authorization}")
        timed = _TimedSocket(raw, limits)
        timed.sendall("".join(line + "\r\n" for line in [*lines, ""]).encode("ascii"))
        response = http.client.HTTPResponse(timed, method="CONNECT")  # type: ignore[arg-type]
        response.begin()
        if response.status != 200:
            raise OSError(f"the proxy answers {response.status}")

    def _context(self) -> ssl.SSLContext:
        if self._given is not None:
            return self._given
        if self._own is None:
            self._own = ssl.create_default_context()
        return self._own

    def after_fork(self) -> None:
        """Make a context of the child's own: a thread of the parent may have held a lock of the copied one."""
        self._own = None


class Current:
    """The connection that a background thread waits for, so that another thread can end the wait."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._socket: socket.socket | None = None
        self._ended = False

    def hold(self, sock: socket.socket) -> None:
        with self._lock:
            self._socket = sock
            if self._ended:
                raise OSError("the verifier is closed")

    def release(self) -> None:
        with self._lock:
            self._socket = None

    def end(self) -> None:
        """End the present wait and all later ones."""
        with self._lock:
            self._ended = True
            if self._socket is not None:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # TLS need not say goodbye

    def after_fork(self) -> None:
        """Close the child's copy of the connection, which the parent goes on using."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                socket.close(self._socket.detach())  # no shutdown, which would end the parent's as well


class Answer:
    """The answer to a request."""

    def __init__(
        self, response: http.client.HTTPResponse, raw: socket.socket, limits: Limits, current: Current
    ) -> None:
        self.status = response.status
        self.headers = Headers(response.getheaders())
        self.limits = limits
        self._response = response
        self._raw = raw
        self._current = current

    def read(self, most: int) -> bytes:
        """Read the whole body, but no more than one byte beyond a bound."""
        parts, left = [], most + 1
        while left > 0 and (part := self._response.read1(min(left, 1 << 16))):
            self.limits.progress()
            parts.append(part)
            left -= len(part)
        return b"".join(parts)

    def chunk(self) -> bytes:
        """Read what is there, or wait for more. Empty: the end."""
        return self._response.read1(1 << 16)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._current.release()
        self._response.close()
        self._raw.close()


class _TimedSocket:
    """What http.client needs of a socket, with limits to each wait."""

    def __init__(self, raw: socket.socket, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits

    def sendall(self, data: bytes) -> None:
        self._raw.settimeout(self._limits.left())
        self._raw.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._raw, self._limits), 1 << 16)

    def close(self) -> None:
        """Do nothing: the Answer closes the connection."""


class _TimedReader(io.RawIOBase):
    def __init__(self, raw: socket.socket, limits: Limits) -> None:
        self._raw = raw
        self._limits = limits

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._raw.settimeout(self._limits.left())
        return self._raw.recv_into(buffer)


def _connect(host: str, port: int, limits: Limits, current: Current) -> socket.socket:
    """Connect to one of a host's addresses. Each gets its share of the time that is left, so that one that is
    dead does not take all of it.
    """
    addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failed: OSError = OSError(f"{host} has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        try:
            raw = socket.socket(family, kind, protocol)
        except OSError as e:  # the kernel lacks IPv6, for example
            failed = e
            continue
        try:
            current.hold(raw)
            raw.settimeout(limits.left() / (len(addresses) - number))
            raw.connect(address)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return raw
        except OSError as e:
            current.release()
            raw.close()
            failed = e
    raise failed


def _shake_hands(tls: ssl.SSLSocket, limits: Limits) -> None:
    tls.setblocking(False)
    while True:
        try:
            with openssl:
                return tls.do_handshake()
        except ssl.SSLWantReadError:
            awaited = selectors.EVENT_READ
        except ssl.SSLWantWriteError:
            awaited = selectors.EVENT_WRITE
        with selectors.DefaultSelector() as selector:
            selector.register(tls, awaited)
            selector.select(limits.left())


def after_fork() -> None:
    """Make a lock of the child's own."""
    global openssl
    openssl = threading.Lock()


def _proxy(scheme: str, host: str) -> tuple[str, int, str] | None:
    """Return the proxy of the environment for a host: its host, its port and the value of Proxy-Authorization."""
    proxies = getproxies_environment()
    url = proxies.get(scheme)
    if not url or is_loopback(host) or proxy_bypass(host):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"the environment names a proxy for {scheme} whose URL is not an http URL")
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        authorization = f"Basic {base64.b64encode(pair).decode()}"
    return parts.hostname, parts.port or 80, authorization


def is_loopback(host: str) -> bool:
    """Report whether a host is the machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
