"""Files of images, written whole or not at all. Imports no torch, so that a process beside can begin at once."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from jaxtyping import UInt8
from PIL import Image

PNG_COMPRESSION = 1
"""zlib's quickest: a few per cent larger than its default and several times faster."""


@contextmanager
def whole(path: Path, flush: bool = True) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the name `path` once it is complete and on the disk, or never exists.

    Without `flush` that holds where a process is killed, not where the machine is: for files whose end is looked at.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        with temporary.open("wb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_array(path: Path, images: UInt8[np.ndarray, "b c h w"]) -> None:
    """A `.npy` file of images, `[b, H, W, C]` as evaluation suites have them."""
    with whole(path) as file:
        np.save(file, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))


def write_pngs(paths: list[Path], images: UInt8[np.ndarray, "b c h w"]) -> None:
    """A PNG file for each image, of 1 or 3 channels."""
    for path, image in zip(paths, images.transpose(0, 2, 3, 1), strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        with whole(path, flush=False) as file:
            picture.save(file, "PNG", compress_level=PNG_COMPRESSION)
