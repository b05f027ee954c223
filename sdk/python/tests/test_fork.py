"""A verifier over a fork, and at the end of a program."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from issuer import Issuer, until

from watchword_verify import Moment, Verifier, VerifyError, system_clock
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
        watchdog = threading.Timer(60, os.kill, (pid, signal.SIGKILL))
        watchdog.start()
        with os.fdopen(reading) as pipe:
            text = pipe.read()
        watchdog.cancel()
        os.waitpid(pid, 0)
        return json.loads(text)

    return wait


pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def test_a_child_goes_on_with_a_copy(issuer: Issuer) -> None:
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


def test_the_confirmation_of_a_copy_ages(issuer: Issuer) -> None:
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


@pytest.mark.parametrize("what", ["keys", "feed", "known"])
def test_a_fork_waits_for_the_end_of_a_change(issuer: Issuer, what: str) -> None:
    """A child never has half of a change, and no lock of its own is held by a thread that it does not have."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, half, begun = issuer.token(), False, threading.Event()
        assert code(verifier, good) == ""

        def change() -> None:
            nonlocal half
            with getattr(verifier, f"_{what}").lock:
                half = True
                begun.set()
                time.sleep(0.05)
                half = False

        thread = threading.Thread(target=change)
        thread.start()
        begun.wait()
        wait = in_child(lambda: [half, code(verifier, good), code(verifier, issuer.token())])
        assert wait() == [False, "", ""]
        thread.join()


def test_forks_beside_busy_threads(issuer: Issuer) -> None:
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, stop = issuer.token(), threading.Event()
        assert code(verifier, good) == ""
        feed, chosen, written = verifier._feed, random.Random(3), list[bytes]()
        assert feed is not None

        def busy() -> None:
            while not stop.is_set():
                id = chosen.randbytes(16)
                with feed.lock:
                    feed.list.apply(Entries(1, [False], [id], [0], [0], [4_000_000_000]))
                    written.append(id)
                code(verifier, issuer.token())

        def child() -> object:
            whole = len(feed.list) == len(written)
            for id in written:
                whole = whole and feed.list._others[id[0] % 64].find(id, int.from_bytes(id[4:8], "little")) >= 0
            return [whole, code(verifier, good), code(verifier, issuer.token())]

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


def test_a_closed_verifier_stays_closed_in_a_child(issuer: Issuer) -> None:
    verifier = Verifier(issuer.url, max_staleness=60)
    token = issuer.token()
    assert code(verifier, token) == ""
    verifier.close()
    assert in_child(lambda: [code(verifier, token), threading.active_count()])() == ["", 1]


def test_a_child_of_a_child(issuer: Issuer) -> None:
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


def test_a_server_that_forks_in_c(issuer: Issuer) -> None:
    """uWSGI tells Python of a fork only afterwards, in the child."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        good, old = issuer.token(), issuer.token()
        assert code(verifier, good) == ""
        issuer.wait_for_request("streaming")

        def child() -> object:
            first = code(verifier, good)
            until(lambda: code(verifier, old) == "token_revoked")
            return first

        def fork() -> int:
            pid: int = ctypes.PyDLL(None).fork()
            if pid == 0:
                ctypes.pythonapi.PyOS_AfterFork_Child()
            return pid

        wait = in_child(child, fork)
        issuer.wait_for_request("streaming", 2)
        issuer.revoke("jti", "token-2")
        assert wait() == ""


def test_forks_while_verifiers_come_and_go(issuer: Issuer) -> None:
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


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_do_not_fork(issuer: Issuer, method: str) -> None:
    """Each makes its own verifier: one cannot be sent to another process, and errors can."""
    with Verifier(issuer.url, max_staleness=60) as verifier:
        token = issuer.token()
        with pytest.raises(TypeError):
            pickle.dumps(verifier)
        issuer.revoke("jti", "token-1")
    with ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(make_and_verify, issuer.url, token).result(60) == "token_revoked"


SOURCES = os.pathsep.join(str(Path(__file__).parents[1] / name) for name in ("src", "tests"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCES, "PYTHONDONTWRITEBYTECODE": "1"}


def test_gunicorn_with_preload(issuer: Issuer, tmp_path: Path) -> None:
    """The application is loaded, with its verifier, before the workers fork."""
    (tmp_path / "app.py").write_text(
        textwrap.dedent(f"""
        import os
        from watchword_verify import Verifier, claim
        from watchword_verify.wsgi import Require
        verifier = Verifier({issuer.url!r}, max_staleness=60)
        def application(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [str(os.getpid()).encode()]
        application = Require(application, verifier, claim("ship", "acc"))
        """)
    )
    options = ["--preload", "--workers=2", "--bind=127.0.0.1:0", "--graceful-timeout=1", "--no-control-socket"]
    with open(tmp_path / "log", "w+") as log:
        command = [sys.executable, "-m", "gunicorn", *options, "app"]
        server = subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=log)
        try:
            text = ""

            def listening() -> bool:
                nonlocal text
                text = (tmp_path / "log").read_text()
                assert server.poll() is None, text
                return "Listening at" in text

            until(listening)
            found = re.search(r"Listening at: (http://[0-9.:]+)", text)
            assert found

            def get(token: str) -> tuple[int, str]:
                request = urllib.request.Request(found[1], headers={"Authorization": f"Bearer {token}"})
                try:
                    with urllib.request.urlopen(request, timeout=30) as answer:
                        return answer.status, answer.read().decode()
                except urllib.error.HTTPError as e:
                    with e:
                        return e.code, json.loads(e.read())["code"]

            token, workers = issuer.token(), set[str]()
            end = time.monotonic() + 30
            while len(workers) < 2:
                status, text = get(token)
                if status == 200:
                    workers.add(text)
                # On a busy machine a worker may not have been able to ask yet.
                assert status in (200, 503) and time.monotonic() < end, text
            issuer.revoke("jti", "token-1")
            refused = 0
            while refused < 20:
                refused = refused + 1 if get(token) == (401, "token_revoked") else 0
                assert time.monotonic() < end
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.parametrize("what", ["keys", "pages", "stream", ""])
def test_a_program_that_ends_is_not_held_up(issuer: Issuer, what: str) -> None:
    """A program may end without close, whatever the background waits for."""
    if what:
        issuer.faults[what] = lambda handler: time.sleep(3600)
    program = f"""
import sys
from watchword_verify import Verifier
verifier = Verifier({issuer.url!r}, max_staleness=3600)
{"verifier.status()" if what in ("keys", "pages") else f"verifier.verify({issuer.token()!r})"}
sys.stdin.readline()
print("end", flush=True)
"""
    running = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=ENVIRONMENT
    )
    try:
        issuer.wait_for_request(what or "streaming")
        begun = time.monotonic()
        output, _ = running.communicate(b"\n", timeout=60)
        assert (running.returncode, output) == (0, b"end\n")
        assert time.monotonic() - begun < 20
    finally:
        running.kill()
