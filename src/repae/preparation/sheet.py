"""The contact sheet: what the model will see, for a person to look at before a long run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from repae.config import write_atomic
from repae.data.shard_folder import ShardFolder
from repae.runtime.seeds import seed_of

SHEET = "contact-sheet.png"
COLUMNS, ROWS = 8, 5
SMALLEST, LARGEST = 96, 256
"""Images are shown pixel by pixel; smaller ones are enlarged by a whole factor, larger ones are shrunk."""

GAP, TEXT, FONT = 8, 22, 14
BACKGROUND, INK = (24, 24, 24), (230, 230, 230)


def write_sheet(folder: Path, scratch: Path) -> None:
    """Writes ``contact-sheet.png``: images drawn at random, in the order of their place, under each its class.

    Which ones is a function of the folder's content. A folder without a readable image gets none.
    """
    shards = ShardFolder(folder, "images")
    if not len(shards):
        return
    picture = contact_sheet(shards)
    out = io.BytesIO()
    picture.save(out, "PNG", compress_level=1)  # photographs hardly shrink more, at twice the time
    write_atomic(folder / SHEET, out.getvalue(), scratch)


def contact_sheet(shards: ShardFolder) -> Image.Image:
    """A sheet of up to 40 images, at least one."""
    drawn = np.random.default_rng(seed_of(shards.manifest.seal, "contact sheet"))
    chosen = np.sort(drawn.choice(len(shards), min(len(shards), COLUMNS * ROWS), replace=False))
    images = shards.rows("images", chosen).permute(0, 2, 3, 1).numpy()
    labels, classes = shards.labels(), shards.plan.about["classes"]
    resolution = images.shape[1]
    side = min(LARGEST, resolution * max(1, -(-SMALLEST // resolution)))
    resampling = Image.Resampling.NEAREST if side >= resolution else Image.Resampling.LANCZOS
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (GAP + columns * (side + GAP), GAP + rows * (side + TEXT + GAP)), BACKGROUND)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT)
    for place, (index, image) in enumerate(zip(chosen.tolist(), images, strict=True)):
        row, column = divmod(place, columns)
        corner = (GAP + column * (side + GAP), GAP + row * (side + TEXT + GAP))
        cell = Image.fromarray(image).resize((side, side), resampling)
        sheet.paste(cell, corner)
        label = int(labels[index])
        pen.text((corner[0], corner[1] + side + 3), _fitting(f"{label}: {classes[label]}", side, font), INK, font)
    return sheet


def _fitting(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
