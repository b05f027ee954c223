"""A verifier over a fork, and at the end of a program."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from issuer import Issuer, until

SOURCES = os.pathsep.join(str(Path(__file__).parents[1] / name) for name in ("src", "tests"))
ENVIRONMENT = {**os.environ, "PYTHONPATH": SOURCES, "PYTHONDONTWRITEBYTECODE": "1"}



def group(leader: int) -> Iterator[int]:
    """Find the processes of a group."""
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.getpgid(int(path.name)) == leader:
                yield int(path.name)


@pytest.mark.parametrize(
    "programs",
    [
        [
            "a_child_goes_on_with_a_copy",
            "the_confirmation_of_a_copy_ages",
            "a_fork_waits_for_the_end_of_a_change keys",
            "a_fork_waits_for_the_end_of_a_change feed",
            "a_fork_waits_for_the_end_of_a_change known",
            "a_fork_waits_for_the_end_of_a_change handshake",
            "forks_beside_busy_threads",
            "a_closed_verifier_stays_closed_in_a_child",
            "a_child_of_a_child",
            "forks_while_verifiers_come_and_go",
        ],
        ["a_server_that_forks_in_c"],  # after which Python's own forks are not to be used
        ["processes_that_do_not_fork spawn", "processes_that_do_not_fork forkserver"],
    ],
    ids=["in Python", "in C", "none"],
)
def test_forks(programs: list[str], tmp_path: Path) -> None:
    """The programs of forks.py are in process groups of their own: a child that hangs must hold up nothing. Where
    the processes are that are left after a failure, or after 90 s, is shown.
    """
    options = ["-X", "faulthandler", "-W", "error", "-W", "ignore:This process:DeprecationWarning"]  # of os.fork
    command = [sys.executable, *options, str(Path(__file__).with_name("forks.py")), *programs]
    with open(tmp_path / "log", "w+") as log:
        running = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, process_group=0)
        try:
            with suppress(subprocess.TimeoutExpired):
                running.wait(90)
            if running.returncode != 0:
                for pid in group(running.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGABRT)
                    time.sleep(0.2)  # for one after the other, whose lines are then not mixed
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
        log.seek(0)
        text = log.read()
    assert running.returncode == 0, text
    assert [line for line in text.splitlines() if line in programs] == programs


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
            end = time.monotonic() + 90
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


def test_nothing_is_imported_later(issuer: Issuer) -> None:
    """A child would wait for ever for a module that a thread of its parent was about to import."""
    program = f"""
import sys
from watchword_verify import Verifier
before = set(sys.modules)
with Verifier({issuer.url!r}, max_staleness=60) as verifier, Verifier("https://127.0.0.1:1") as _:
    verifier.verify({issuer.token()!r})
print(sorted(set(sys.modules) - before))
"""
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=90)
    assert (ran.returncode, ran.stdout) == (0, "[]\n"), ran.stderr


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
