"""The test vectors of testdata/verifier."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

_DIRECTORY = Path(__file__).resolve().parents[3] / "testdata" / "verifier"

Test = TypeVar("Test", bound=Callable[..., None])


def load(name: str) -> dict[str, Any]:
    file: dict[str, Any] = json.loads((_DIRECTORY / f"{name}.json").read_text("utf-8"))
    return file


def cases(name: str) -> Callable[[Test], Test]:
    """Run a test for each case of a file."""
    listed = load(name)["cases"]
    assert listed

    def mark(test: Test) -> Test:
        parameters = [pytest.param(case, id=case["name"], marks=pytest.mark.vectors(name)) for case in listed]
        decorated: Test = pytest.mark.parametrize("case", parameters)(test)
        return decorated

    return mark


def names() -> set[str]:
    return {path.stem for path in _DIRECTORY.glob("*.json")}
