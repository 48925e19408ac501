from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from errors import refused
from PIL import Image

from repae.config import UserError
from repae.sampling import grid, pairs, png, sheet, write_png


def _images(n=5, c=1, size=32):
    return torch.randint(256, (n, c, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_in_the_grid_unaltered(channels):
    """A grid shows pixels, enlarged but not smoothed; cells left over are grey."""
    images = _images(5, channels)
    sheet = grid(images, 3)
    assert sheet.shape == (2 * 68 + 4, 3 * 68 + 4, channels)
    for index in range(5):
        top, left = 4 + 68 * (index // 3), 4 + 68 * (index % 3)
        cell = sheet[top : top + 64, left : left + 64]
        assert np.array_equal(cell[::2, ::2], images[index].permute(1, 2, 0)) and np.array_equal(cell[::2], cell[1::2])
    assert (sheet[72:, 140:] == 96).all()


@pytest.mark.parametrize(("size", "cell"), [(8, 64), (48, 96), (64, 64), (256, 256)])
def test_small_images_become_readable_and_large_ones_stay(size, cell):
    """Only whole factors: no pixel is wider than its neighbour."""
    assert grid(_images(1, 1, size), 1).shape[0] == cell + 8


def test_pairs_stand_above_each_other():
    """Real above reconstructed above their difference, which is mid-grey where nothing differs."""
    real = _images(4)
    rebuilt = real.clone()
    rebuilt[1] = (real[1].int() // 2 + 10).to(torch.uint8)
    sheet = pairs(real, rebuilt, columns=2)
    rows = [sheet[4 + 68 * row : 68 + 68 * row] for row in range(6)]
    assert np.array_equal(rows[0][::2, 4:68:2], real[0].permute(1, 2, 0))
    assert np.array_equal(rows[1][::2, 72:136:2], rebuilt[1].permute(1, 2, 0))
    assert (rows[2][:, 4:68] == 128).all() and (rows[2][:, 72:136] != 128).any()
    assert np.array_equal(rows[3], rows[4])


def test_pairs_of_few_images_fill_one_row():
    """Fewer images than columns are no error."""
    assert pairs(_images(3), _images(3), columns=10).shape == (3 * 68 + 4, 3 * 68 + 4, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_files_hold_the_picture(tmp_path, channels):
    """Grey stays grey, colour stays colour, bit for bit; folders are made."""
    sheet = grid(_images(2, channels), 2)
    write_png(tmp_path / "samples" / "grid.png", sheet)
    read = Image.open(tmp_path / "samples" / "grid.png")
    assert read.mode == ("L" if channels == 1 else "RGB")
    assert np.array_equal(np.asarray(read).reshape(sheet.shape), sheet)
    assert Image.open(io.BytesIO(png(sheet))).size == (sheet.shape[1], sheet.shape[0])


@pytest.mark.parametrize("images", [_images(0), _images(2, 4)])
def test_what_makes_no_picture_is_refused(images):
    """No images, or channels that no picture has."""
    with refused(UserError, "2 columns", tuple(images.shape), "1 or 3 channels"):
        grid(images, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_words_stand_beside_the_images(channels):
    """Without words a sheet is a grid; with them every image is whole still, and there is ink round them."""
    images = _images(4, channels)
    assert np.array_equal(sheet(images, 2), grid(images, 2))
    made = sheet(images, 2, rows=("one", "two"), heads=("a", "b"), below=("1.0", "2.0", "3.0", "4.0"))
    left, line = made.shape[1] - grid(images, 2).shape[1], 18
    assert left > 20 and made.shape[0] == grid(images, 2).shape[0] + 3 * line
    for index in range(4):
        row, column = divmod(index, 2)
        top, start = line + 4 + row * (68 + line), left + 4 + 68 * column
        cell = made[top : top + 64, start : start + 64]
        assert np.array_equal(cell[::2, ::2], images[index].permute(1, 2, 0))
        assert made[top + 68 : top + 64 + line, start : start + 64].max() > 200  # the words below
    assert made[line:, :left].max() > 200 and made[: line + 3, left:].max() > 200
