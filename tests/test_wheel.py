"""A wheel holds the package and nothing else, and works where there is no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import repae

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the project's own backend; nothing is fetched, and nothing is written into the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file below src/repae is in it, code that exports carry and the mark for type checkers included; no test,
    experiment or benchmark is."""
    sources = {
        path.relative_to(ROOT / "src").as_posix()
        for path in (ROOT / "src" / "repae").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"repae/py.typed", "repae/export/standalone/pipeline.py"} <= sources
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata, licence, entries = (
            archive.read(name).decode()
            for end in ("METADATA", "licenses/LICENSE", "entry_points.txt")
            for name in archive.namelist()
            if name.endswith(f".dist-info/{end}")
        )
    assert names == sources
    told = Parser().parsestr(metadata)
    assert (told["Name"], told["Version"], told["Requires-Python"]) == ("repae", repae.__version__, ">=3.10")
    assert told["License-Expression"] == "Apache-2.0" and "Apache License" in licence
    assert "repae = repae.cli:main" in entries and "# repae" in metadata


def test_it_works_outside_a_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked alone, far from here: the command line answers and a recipe is planned, from these files."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"repae {repae.__version__}:" in python("-m", "repae", "--help")
    code = "import repae; from repae.cli import main; print(repae.__file__); main(['train', 'digits-sit', '--dry-run'])"
    file, plan = python("-c", code).split("\n", 1)
    assert Path(file).is_relative_to(site) and "parameters" in plan
    assert not (tmp_path / "runs").exists()
