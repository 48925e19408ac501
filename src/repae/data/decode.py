"""From the bytes of an image file to the square of pixels that training sees."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from repae.data.crop import centre_crop
from repae.data.image_source import BrokenImageError

FORMATS = ("JPEG", "PNG", "WEBP")
JPEG_START = b"\xff\xd8\xff"
ORIENTATION = 0x0112
"""The EXIF tag in which a camera says how it was held; 1 is upright."""

MOST_PIXELS = 178_956_970
"""Where Pillow begins to warn of an attack on the memory. At twice as many it refuses, whatever it is told."""


def decode(
    data: bytes, resolution: int, *, upright: bool = False, most_pixels: int = MOST_PIXELS
) -> UInt8[Tensor, "3 r r"]:
    """Read one JPEG, PNG or WebP file and cut its centre (`centre_crop`; colours: `to_rgb`).

    The content decides the format. `upright` turns the image as its EXIF orientation says, which ADM and the reference
    do not. An image of more than `most_pixels` is refused before it is decoded.

    Raises:
        BrokenImageError: with the reason, for anything that cannot be read as an image.
    """
    try:
        pixels = _crop(data, resolution, upright, most_pixels)
    except (BrokenImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BrokenImageError("it is no JPEG, PNG or WebP image" if data else "the file is empty") from error
    except Exception as error:  # decoders of damaged files raise anything, struct.error and SyntaxError included
        raise BrokenImageError(getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def orientation(data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    if data.startswith(JPEG_START) and not _has_metadata(data):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # what is broken is found, and said, by `decode`
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_metadata(jpeg: bytes) -> bool:
    """Whether a JPEG has an APP1 segment, where EXIF and XMP are, before its pixels; found in microseconds."""
    place = 2
    while place + 4 <= len(jpeg) and jpeg[place] == 0xFF and jpeg[place + 1] not in (0xDA, 0xE1):
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return jpeg[place : place + 2] != b"\xff\xda"


def _crop(data: bytes, resolution: int, upright: bool, most_pixels: int) -> UInt8[np.ndarray, "r r 3"]:
    image = None if upright else _quick_jpeg(data, most_pixels)
    if image is not None:
        return centre_crop(image, resolution)
    with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
        _check_size(opened.width, opened.height, most_pixels)
        opened.load()
        return centre_crop(ImageOps.exif_transpose(opened) if upright else opened, resolution)


def _quick_jpeg(data: bytes, most_pixels: int) -> Image.Image | None:
    """A plain colour JPEG by libjpeg-turbo alone, the same pixels as Pillow's in two thirds of its time; else None.

    None too for a file that is damaged: Pillow then has the say, and the words.
    """
    if not data.startswith(JPEG_START):
        return None
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours != "YCbCr":
            return None
        _check_size(int(width), int(height), most_pixels)
        # The slow transform and upsampling, which Pillow takes: the fast ones give other pixels.
        pixels = simplejpeg.decode_jpeg(data, "RGBX", fastdct=False, fastupsample=False)
        # Pillow keeps RGB in four bytes a pixel, so that four bytes are copied at once and three are spread one by one.
        return Image.frombytes("RGB", (int(width), int(height)), pixels.data.cast("B"), "raw", "RGBX")
    except ValueError:
        return None


def _check_size(width: int, height: int, most_pixels: int) -> None:
    if width * height > most_pixels:
        raise BrokenImageError(
            f"it measures {width} x {height} = {width * height:,} pixels, more than {most_pixels:,}: it could be a "
            "decompression bomb; a larger --data.most-pixels lets it in"
        )
