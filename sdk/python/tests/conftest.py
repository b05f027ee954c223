"""What all tests share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import vectors
from issuer import Issuer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "vectors(file): the test is run for each case of a file of vectors")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    found = set()
    for item in items:
        for mark in item.iter_markers("vectors"):
            item.user_properties.append(("vectors", mark.args[0]))
            found.add(mark.args[0])
    if found and found != vectors.names():
        raise pytest.UsageError(f"no test for the vectors {sorted(vectors.names() - found)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    passed: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        if report.when == "call":
            passed.update(str(file) for name, file in report.user_properties if name == "vectors")
    if passed:
        listed = ", ".join(f"{file} {count}" for file, count in sorted(passed.items()))
        terminalreporter.write_line(f"vectors: {passed.total()} passed ({listed})")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
