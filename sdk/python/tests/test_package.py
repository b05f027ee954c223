"""What is published: the wheel, and the libraries with which it works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]


def test_the_wheel(tmp_path: Path) -> None:
    for name in ("src", "README.md", "LICENSE", "pyproject.toml"):
        source = HERE / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(source, tmp_path / name)
    build = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    made = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "eprecat" not in made.stderr, made.stderr
    wheel = zipfile.ZipFile(tmp_path / made.stdout.split()[-1])
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == {f"watchword_verify/{path.name}" for path in (HERE / "src" / "watchword_verify").glob("*.[pt]y*")}
    assert "watchword_verify/py.typed" in names
    info = next(name for name in wheel.namelist() if name.endswith("/METADATA")).removesuffix("METADATA")
    assert wheel.read(f"{info}licenses/LICENSE") == (HERE.parents[1] / "LICENSE").read_bytes()
    metadata = Parser().parsestr(wheel.read(f"{info}METADATA").decode())
    assert (metadata["License-Expression"], metadata["Requires-Python"]) == ("Apache-2.0", ">=3.11")
    assert metadata.get_all("Requires-Dist") == ["PyJWT[crypto]<3,>=2.6"]
    links = re.findall(r"\]\(([^)]*)\)", str(metadata.get_payload()))
    assert links and all(link.startswith("https://") for link in links), links


def test_the_oldest_libraries() -> None:
    """The vectors of keys and signatures pass with the least versions that pyproject.toml allows."""
    least = Path(sys.prefix) / "least"
    lock = (HERE / "requirements-least.lock").read_text()
    dependencies = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["dependencies"]
    version = re.search(r"PyJWT==([0-9]+\.[0-9]+)", lock)
    assert version and dependencies == [f"PyJWT[crypto]>={version[1]},<3"]
    program = f"""
import jwt, cryptography, pytest, test_vectors, vectors
assert jwt.__version__.startswith({version[1]!r}) and "cryptography==" + cryptography.__version__ in {lock!r}
for case in vectors.load("keysets")["cases"]:
    test_vectors.test_key_sets(case)
for case in vectors.load("tokens")["cases"]:
    with pytest.MonkeyPatch.context() as patch:
        test_vectors.test_tokens(case, patch)
print("end")
"""
    path = os.pathsep.join(map(str, (least, HERE / "src", HERE / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "end\n"), ran.stderr
