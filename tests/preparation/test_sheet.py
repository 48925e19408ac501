"""The contact sheet shows prepared pixels, each above its own class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from repae.data.shard_folder import FieldSpec, ShardFolder, ShardPlan
from repae.data.shard_writer import ShardWriter, begin, finish
from repae.preparation.sheet import BACKGROUND, COLUMNS, GAP, ROWS, TEXT, contact_sheet, write_sheet


def made(folder: Path, count: int, side: int) -> ShardFolder:
    """Images of one colour each, which says their number; ten classes with names that grow."""
    field = FieldSpec(name="images", dtype="uint8", shape=(3, side, side))
    about = {"classes": ["漢字 " * number + "x" for number in range(10)], "resolution": side}
    plan = begin(folder, ShardPlan(kind="images", count=count, per_shard=count, fields=(field,), about=about))
    with ShardWriter(folder, plan, 0) as shard:
        for item in range(count):
            shard.add(str(item), item % 10, images=np.full(field.shape, 40 + item, np.uint8))
        shard.commit()
    finish(folder, plan, 10)
    return ShardFolder(folder, "images")


@pytest.mark.parametrize(("count", "side", "cell"), [(3, 8, 96), (60, 50, 100), (60, 300, 256)])
def test_cells_show_distinct_images_in_order(tmp_path: Path, count: int, side: int, cell: int) -> None:
    """Protects what a person judges by: every cell is one whole image in its own pixels, none shown twice, with
    something written below it; small ones are enlarged by a whole factor, large ones shrunk."""
    sheet = np.asarray(contact_sheet(made(tmp_path / "made", count, side)))
    shown = min(count, COLUMNS * ROWS)
    columns = min(COLUMNS, shown)
    numbers = []
    for place in range(shown):
        row, column = divmod(place, columns)
        top, left = GAP + row * (cell + TEXT + GAP), GAP + column * (cell + GAP)
        image = sheet[top : top + cell, left : left + cell]
        assert (image == image[0, 0]).all()
        numbers.append(int(image[0, 0, 0]) - 40)
        assert (sheet[top + cell : top + cell + TEXT, left : left + cell] != BACKGROUND).any()
    assert numbers == sorted(set(numbers)) and set(numbers) <= set(range(count))
    assert sheet.shape[1] == GAP + columns * (cell + GAP)


def test_the_sheet_is_a_function_of_the_folder(tmp_path: Path) -> None:
    """Protects byte-identical folders: drawn twice it is the same file, and a picture that opens."""
    made(tmp_path / "made", 60, 8)
    write_sheet(tmp_path / "made", tmp_path)
    first = (tmp_path / "made" / "contact-sheet.png").read_bytes()
    write_sheet(tmp_path / "made", tmp_path)
    assert (tmp_path / "made" / "contact-sheet.png").read_bytes() == first
    assert Image.open(tmp_path / "made" / "contact-sheet.png").format == "PNG"
