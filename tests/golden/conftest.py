"""Fixtures for the numbers of the reference: the project's own copy, or the directory that `REPAE_GOLDEN` names."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

GOLDEN = Path(os.environ.get("REPAE_GOLDEN") or Path(__file__).parent / "vectors")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `training_case` runs once for each recorded training of the directory."""
    if "training_case" in metafunc.fixturenames:
        metafunc.parametrize("training_case", sorted(path.stem for path in GOLDEN.glob("train_*.safetensors")))


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The directory of `*.safetensors` files and their `manifest.json`."""
    if not (GOLDEN / "manifest.json").is_file():
        pytest.fail(f"no golden vectors: {GOLDEN / 'manifest.json'} does not exist (REPAE_GOLDEN names the directory)")
    return GOLDEN


@pytest.fixture(scope="session")
def manifest(golden_dir: Path) -> dict[str, Any]:
    """Configuration of every case, by file name without suffix."""
    return json.loads((golden_dir / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def load(golden_dir: Path) -> Callable[[str], dict[str, Tensor]]:
    """`load(name)`: the tensors of a case, freshly read, so that a test may change them."""
    return lambda name: load_file(golden_dir / f"{name}.safetensors")
