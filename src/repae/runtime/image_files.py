"""Files of images, written whole or not at all. Imports no torch, so that a background process can begin at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from repae.config import atomic_file

PNG_COMPRESSION = 1
"""zlib's quickest: a few per cent larger than its default and several times faster."""


def write_array(path: Path, images: UInt8[np.ndarray, "b c h w"]) -> None:
    """A `.npy` file of images, `[b, H, W, C]` as evaluation suites have them."""
    with atomic_file(path) as file:
        np.save(file, np.ascontiguousarray(images.transpose(0, 2, 3, 1)))


def write_pngs(paths: list[Path], images: UInt8[np.ndarray, "b c h w"]) -> None:
    """A PNG file for each image, of 1 or 3 channels."""
    for path, image in zip(paths, images.transpose(0, 2, 3, 1), strict=True):
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        with atomic_file(path, flush=False) as file:
            picture.save(file, "PNG", compress_level=PNG_COMPRESSION)
