"""Pictures of images: grids, real against reconstructed, and the files they go into."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from repae.config import UserError, write_atomic

READABLE = 64
GAP = 4
BACKGROUND = 96
ERROR_GAIN = 8
INK = 255
LETTERS = 12, 5.3
"""Height of letters in pixels at the least, and how many of them are as high as a cell is wide, at the least."""


def grid(
    images: UInt8[Tensor, "n c h w"], columns: int, readable: int = READABLE
) -> UInt8[np.ndarray, "height width c"]:
    """Images in rows of `columns` with grey gaps; small ones enlarged by a whole factor to `readable` px or more.

    Cells that are left over in the last row stay grey. 1 or 3 channels.
    """
    if len(images) == 0 or columns < 1 or images.shape[1] not in (1, 3):
        raise UserError(
            f"no grid of {columns} columns can be made of images {tuple(images.shape)}; "
            "allowed: at least 1 column and 1 image of 1 or 3 channels"
        )
    cells = _cells(images, readable)
    height, width, channels = cells.shape[1:]
    rows = -(-len(cells) // columns)
    sheet = np.full((rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, channels), BACKGROUND, np.uint8)
    for index, cell in enumerate(cells):
        top, left = (GAP + place * size for place, size in zip(divmod(index, columns), (height + GAP, width + GAP)))
        sheet[top : top + height, left : left + width] = cell
    return sheet


def _cells(images: UInt8[Tensor, "n c h w"], readable: int) -> UInt8[np.ndarray, "n height width c"]:
    scale = max(1, -(-readable // min(images.shape[-2:])))
    return images.cpu().repeat_interleave(scale, -2).repeat_interleave(scale, -1).permute(0, 2, 3, 1).numpy()


def sheet(
    images: UInt8[Tensor, "n c h w"],
    columns: int,
    *,
    rows: Sequence[str] = (),
    heads: Sequence[str] = (),
    below: Sequence[str] = (),
) -> UInt8[np.ndarray, "height width c"]:
    """A `grid` with words: a name left of each row, one above each column, one below each image; none by default."""
    plain = grid(images, columns)
    height, width = (side + GAP for side in _cells(images[:1], READABLE).shape[1:3])
    font = ImageFont.load_default(size=max(LETTERS[0], round(width / LETTERS[1])))
    line = round(font.size * 1.4)  # type: ignore[union-attr]
    left = round(max((font.getlength(name) for name in rows), default=0)) + (2 * GAP if rows else 0)
    top, under = (line if heads else 0), (line if below else 0)
    count = len(plain) // height
    out = Image.new("L", (left + plain.shape[1], top + len(plain) + count * under), BACKGROUND)
    if plain.shape[-1] == 3:
        out = out.convert("RGB")
    pen = ImageDraw.Draw(out)
    ink = INK if out.mode == "L" else (INK,) * 3
    for row in range(count):
        y = top + row * (height + under)
        band = plain[row * height : (row + 1) * height + GAP]
        out.paste(Image.fromarray(band[..., 0] if band.shape[-1] == 1 else band), (left, y))
        if row < len(rows):
            pen.text((left - GAP, y + GAP + height // 2), rows[row], ink, font, anchor="rm")
        for column, words in enumerate(below[row * columns : (row + 1) * columns]):
            pen.text((left + GAP + column * width + width // 2, y + height + line // 2), words, ink, font, anchor="mm")
    for column, words in enumerate(heads):
        pen.text((left + GAP + column * width + width // 2, line // 2 + GAP // 2), words, ink, font, anchor="mm")
    picture = np.asarray(out)
    return picture[..., None] if picture.ndim == 2 else picture


def pairs(
    real: UInt8[Tensor, "n c h w"], reconstructed: UInt8[Tensor, "n c h w"], columns: int = 10
) -> UInt8[np.ndarray, "height width c"]:
    """Rows of three: real images, their reconstructions, and the difference enlarged 8 times around mid-grey.

    A lattice that a decoder prints is hard to see in an image and plain in the difference.
    """
    assert real.shape == reconstructed.shape, (real.shape, reconstructed.shape)
    difference = (reconstructed.float() - real.float()) * ERROR_GAIN + 128
    columns = min(columns, len(real))
    whole = len(real) // columns * columns
    kinds = torch.stack([real, reconstructed, difference.clamp(0, 255).to(torch.uint8)])[:, :whole]
    rows = kinds.unflatten(1, (-1, columns)).transpose(0, 1).flatten(0, 2)
    return grid(rows, columns)


def png(picture: UInt8[np.ndarray, "h w c"]) -> bytes:
    image = Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def write_png(path: str | Path, picture: UInt8[np.ndarray, "h w c"]) -> None:
    write_atomic(path, png(picture))
