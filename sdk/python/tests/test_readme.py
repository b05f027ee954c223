"""What README.md shows runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from issuer import Issuer
from test_middleware import app_asgi, app_wsgi, call_asgi, call_wsgi

from watchword_verify import AsyncVerifier, Verifier, _verifier


def test_readme(issuer: Issuer, capsys: Any) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    text = issuer.token(scope="orders:read")
    names: dict[str, Any] = {"text": text, "application": app_wsgi, "asgi_application": app_asgi}
    try:
        for block in blocks:
            exec(compile(block.replace("https://auth.example.com", issuer.url), "README.md", "exec"), names)
        assert "user-1" in capsys.readouterr().out
        assert call_wsgi(names["application"], f"Bearer {text}")[::2] == (200, b"user-1")
        assert asyncio.run(call_asgi(names["asgi_application"], f"Bearer {text}"))[1][::2] == (200, b"user-1")
        assert asyncio.run(names["check"](text)) == "user-1"
        assert [one.text for one in names["required"]] == [
            "ship=acc",
            "scope=orders:read or log=r",
            "auth_time within 5m0s and (amr=otp or amr=hwk)",
            "a user with a name",
        ]
    finally:
        for verifier in list(_verifier._alive):
            if isinstance(verifier, Verifier):
                verifier.close()
            elif isinstance(verifier, AsyncVerifier):
                asyncio.run(verifier.close())


def test_the_options_are_all_there() -> None:
    """The table of README.md has each option, and no other."""
    import inspect

    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    table = readme.split("## Options")[1].split("\n\n")[1]
    named = {name for line in table.splitlines() for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])}
    assert named == set(inspect.signature(Verifier).parameters) - {"clock"}
