"""Folders of real image files, made in the test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def _picture(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image.Image]:
    """Makes a smooth random RGB picture (width, height, seed); left differs from right, top from bottom."""
    return _picture


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[dict[str, tuple[int, int]]], Path]:
    """Makes a data folder of images from {"class/name.suffix": (width, height)}; no two are alike."""

    def make(files: dict[str, tuple[int, int]]) -> Path:
        root = tmp_path / "data"
        for seed, (name, size) in enumerate(files.items()):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            _picture(*size, seed=seed).save(path)
        return root

    return make
