"""From any readable picture to a square of RGB pixels."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8
from PIL import Image

ENLARGED_LIMIT = 178_956_970
"""Most pixels that an image may hold after it was enlarged: Pillow's own limit for a decoded image."""


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as 8-bit RGB, as ADM's `convert("RGB")` gives it.

    Grey is repeated, an alpha channel or a transparent colour is dropped (what it hid becomes visible, nothing is
    composited), CMYK is converted without a colour profile, and the orientation tag of a camera is not applied.
    The one difference: 16-bit grey keeps its high byte, as Pillow does for 16-bit colour, where `convert` would clip
    nearly every value to white.
    """
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P":
        image = image.copy()
        image.info.pop("transparency", None)  # Pillow would warn of some and drop all
    return image if image.mode == "RGB" else image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> UInt8[np.ndarray, "size size 3"]:
    """The centre crop of ADM (arXiv 2105.05233, its published preprocessing), bit for bit, of an image of any mode.

    Halve with a box filter while the short side is at least twice `size`, resize bicubically until the short side is
    `size` (a smaller image is enlarged by the same rule), cut the centre.

    Raises:
        ValueError: the image is so elongated that enlarging it would take more than `ENLARGED_LIMIT` pixels.
    """
    image = to_rgb(image)
    # Boxes at powers of two first: published data sets were cut so, and their pixels depend on it.
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    if width * height > max(ENLARGED_LIMIT, image.width * image.height):
        raise ValueError(
            f"it measures {image.width} x {image.height} pixels: with its short side at {size} it would hold "
            f"{width * height:,} pixels, more than {ENLARGED_LIMIT:,}"
        )
    # Whole first, cut after: in which order Pillow resizes rows and columns, and so the last bit, depends on all sizes.
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    top, left = (height - size) // 2, (width - size) // 2
    return np.array(resized.crop((left, top, left + size, top + size)))
