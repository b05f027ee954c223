"""Programs that fork beside threads. test_fork.py runs them in interpreters of their own, because a child may hang."""

from __future__ import annotations

import ctypes
import itertools
import json
import multiprocessing
import os
import pickle
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from typing import Any

from issuer import Issuer, until

from watchword_verify import Moment, Verifier, VerifyError, _http, system_clock
from watchword_verify._revoked import Entries


def code(verifier: Verifier, token: str, **options: Any) -> str:
    try:
        verifier.verify(token, **options)
    except VerifyError as e:
        return e.code
    return ""


def in_child(report: Callable[[], object], fork: Callable[[], int] = os.fork) -> Callable[[], Any]:
    """Call something in a child. Returns a function that waits for what it has returned."""
    reading, writing = os.pipe()
    pid = fork()
    if pid == 0:
        text = '"it failed"'
        try:
            os.close(reading)
            text = json.dumps(report())
        except BaseException as e:
            text = json.dumps(repr(e))
        finally:
            os.write(writing, text.encode())
            os._exit(0)
    os.close(writing)

    def wait() -> Any:
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        os.waitpid(pid, 0)
        return json.loads(text)

    return wait


def fork_in_c() -> Callable[[], int]:
    """Return a function that forks as a server in C does, which calls PyOS_AfterFork_Child before the child runs any
    Python. In between, the child would give up the interpreter's lock if a thread of the parent had asked for it,
    and wait for ever for that thread, which it does not have.
    """
    library = ctypes.PyDLL(None)
    after = ctypes.cast(ctypes.pythonapi.PyOS_AfterFork_Child, ctypes.c_void_p)
    assert library.__register_atfork(None, None, after, None) == 0  # pthread_atfork of glibc
    fork: Callable[[], int] = library.fork
    return fork


def a_child_goes_on_with_a_copy(issuer: Issuer) -> None:
    """A child needs no answer to use what it has copied. It begins threads and connections of its own, and both
    processes hear of what is revoked later."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, old, later = issuer.token(), issuer.token(), issuer.token()
        issuer.revoke("jti", "token-2")
        until(lambda: code(verifier, old) == "token_revoked")
        issuer.wait_for_request("streaming")

        def child() -> object:
            before = [t.name for t in threading.enumerate() if t.name.startswith("watchword-")]
            first = [code(verifier, good), code(verifier, old), code(verifier, later)]
            names = sorted(t.name for t in threading.enumerate() if t.name.startswith("watchword-"))
            until(lambda: code(verifier, later) == "token_revoked")
            verifier.close()
            return [before, first, names]

        wait = in_child(child)
        issuer.wait_for_request("streaming", 2)
        issuer.revoke("jti", "token-3")
        assert wait() == [[], ["", "token_revoked", ""], ["watchword-feed", "watchword-keys"]]
        until(lambda: code(verifier, later) == "token_revoked")
        assert code(verifier, good) == ""
        assert issuer.requests.count("stream") == 2  # that of the parent goes on
        issuer.revoke("jti", "token-1")
        until(lambda: code(verifier, good) == "token_revoked")


def the_confirmation_of_a_copy_ages(issuer: Issuer) -> None:
    """While the server is away, a child is stale when its parent would be."""
    late = 0.0
    with Verifier(
        issuer.url, max_staleness=60, clock=lambda: Moment(*(t + late for t in system_clock()))) as verifier:
        good, old = issuer.token(), issuer.token()
        issuer.revoke("jti", "token-2")
        until(lambda: code(verifier, old) == "token_revoked")
        for what in ("keys", "pages", "stream"):
            issuer.faults[what] = lambda handler: handler.answer("application/json", b"", 503)

        def child() -> object:
            nonlocal late
            first = [code(verifier, good), code(verifier, old)]
            late = 60
            return [*first, code(verifier, good), code(verifier, old), code(verifier, good, on_stale="accept")]

        assert in_child(child)() == ["", "token_revoked", "revocation_stale", "token_revoked", ""]
        assert code(verifier, good) == ""


def a_fork_waits_for_the_end_of_a_change(issuer: Issuer, what: str) -> None:
    """A child never has half of a change, and no lock of its own is held by a thread that it does not have."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, other, half, begun = issuer.token(), issuer.token(), False, threading.Event()
        assert code(verifier, good) == ""

        def change() -> None:
            nonlocal half
            with _http.openssl if what == "handshake" else getattr(verifier, f"_{what}").lock:
                half = True
                begun.set()
                time.sleep(0.05)
                half = False

        thread = threading.Thread(target=change)
        thread.start()
        begun.wait()
        wait = in_child(lambda: [half, code(verifier, good), code(verifier, other)])
        assert wait() == [False, "", ""]
        thread.join()


def forks_beside_busy_threads(issuer: Issuer) -> None:
    """No thread, and no child, signs anything: it would wait in OpenSSL for a lock that another thread had held."""
    with Verifier(issuer.url, max_staleness=60, cache_size=16) as verifier:
        good, other, many, stop = issuer.token(), issuer.token(), [issuer.token() for _ in range(50)], threading.Event()
        assert code(verifier, good) == ""
        feed, chosen, written = verifier._feed, random.Random(3), list[bytes]()
        assert feed is not None

        def busy() -> None:
            for token in itertools.cycle(many):
                if stop.is_set():
                    return
                id = chosen.randbytes(16)
                with feed.lock:
                    feed.list.apply(Entries(1, [False], [id], [0], [0], [4_000_000_000]))
                    written.append(id)
                code(verifier, token)

        def child() -> object:
            whole = len(feed.list) == len(written)
            for id in written:
                whole = whole and feed.list._others[id[0] % 64].find(id, int.from_bytes(id[4:8], "little")) >= 0
            return [whole, code(verifier, good), code(verifier, other)]

        threads = [threading.Thread(target=busy) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(4):
                assert in_child(child)() == [True, "", ""]
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def a_closed_verifier_stays_closed_in_a_child(issuer: Issuer) -> None:
    verifier = Verifier(issuer.url, max_staleness=60)
    token = issuer.token()
    assert code(verifier, token) == ""
    verifier.close()
    assert in_child(lambda: [code(verifier, token), threading.active_count()])() == ["", 1]


def a_child_of_a_child(issuer: Issuer) -> None:
    """The child in between never used the verifier, and has no background."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, old = issuer.token(), issuer.token()
        assert code(verifier, good) == ""
        issuer.wait_for_request("streaming")

        def grandchild() -> object:
            first = code(verifier, good)
            until(lambda: code(verifier, old) == "token_revoked")
            return first

        wait = in_child(lambda: in_child(grandchild)())
        issuer.wait_for_request("streaming", 2)
        issuer.revoke("jti", "token-2")
        assert wait() == ""


def a_server_that_forks_in_c(issuer: Issuer) -> None:
    """uWSGI tells Python of a fork only afterwards, in the child."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, old = issuer.token(), issuer.token()
        assert code(verifier, good) == ""
        issuer.wait_for_request("streaming")

        def child() -> object:
            first = code(verifier, good)
            until(lambda: code(verifier, old) == "token_revoked")
            return first

        wait = in_child(child, fork_in_c())
        issuer.wait_for_request("streaming", 2)
        issuer.revoke("jti", "token-2")
        assert wait() == ""


def forks_while_verifiers_come_and_go(issuer: Issuer) -> None:
    """A child can use each one that it has."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, stop = issuer.token(), threading.Event()
        assert code(verifier, good) == ""

        def busy() -> None:
            while not stop.is_set():
                Verifier(issuer.url, max_staleness=60).close()

        thread = threading.Thread(target=busy)
        thread.start()
        try:
            for _ in range(5):
                assert in_child(lambda: [code(verifier, good), verifier._process == os.getpid()])() == ["", True]
        finally:
            stop.set()
            thread.join()


def make_and_verify(url: str, token: str) -> str:
    with Verifier(url, max_staleness=60) as verifier:
        return code(verifier, token)


def processes_that_do_not_fork(issuer: Issuer, method: str) -> None:
    """Each makes its own verifier: one cannot be sent to another process, and errors can."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        token = issuer.token()
        with suppress(TypeError):
            pickle.dumps(verifier)
            raise AssertionError("a verifier can be sent to another process")
        issuer.revoke("jti", "token-1")
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(make_and_verify, issuer.url, token).result(60) == "token_revoked"


def give_up(unhandled: Any) -> None:
    """End the program because of an error that nobody handles, of a thread for example."""
    sys.__excepthook__(unhandled.exc_type, unhandled.exc_value, unhandled.exc_traceback)
    os._exit(1)


if __name__ == "__main__":
    threading.excepthook = sys.unraisablehook = give_up
    for named in sys.argv[1:]:
        print(named, flush=True)
        name, *arguments = named.split()
        with Issuer() as running:
            globals()[name](running, *arguments)
