"""A folder of real images to prepare, and quick disks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXIF_ORIENTATION = 0x0112

Photos = Callable[..., Path]


@pytest.fixture(autouse=True, scope="package")
def _quickly() -> Iterator[None]:
    """A busy disk may take a tenth of a second to make a file safe, and hundreds are written here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        yield


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Makes a folder of so many small JPEG and PNG images in three classes: the first one turned by its EXIF, the
    third one empty and the sixth one no image where there are `broken` ones."""

    def make(count: int = 12, broken: bool = True) -> Path:
        root = tmp_path / "photos"
        random = np.random.default_rng(0)
        for number in range(count):
            path = root / ("bee", "cat", "dog")[number % 3] / f"{number:04}.{'png' if number % 4 == 3 else 'jpg'}"
            path.parent.mkdir(parents=True, exist_ok=True)
            small = Image.fromarray(random.integers(0, 256, (4, 5, 3), dtype=np.uint8))
            exif = Image.Exif()
            if number == 0:
                exif[EXIF_ORIENTATION] = 6
            small.resize((17 + number % 9, 13 + number % 7), Image.Resampling.BICUBIC).save(path, exif=exif)
            if broken and number in (2, 5):
                path.write_bytes(b"" if number == 2 else b"no image")
        return root

    return make
