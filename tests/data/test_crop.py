"""The centre crop: closed forms and the colour modes of real pictures (bit-equality is tested in tests/golden)."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
from errors import refused
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from repae.data.crop import centre_crop, to_rgb


@settings(max_examples=15)
@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.sampled_from([1, 4, 16, 32, 100]))
def test_every_picture_gives_a_full_square(width: int, height: int, size: int) -> None:
    """Protects against crops that come out too small: one colour in, `size` x `size` of that colour out."""
    crop = centre_crop(Image.new("RGB", (width, height), (10, 200, 30)), size)
    assert crop.shape == (size, size, 3)
    assert crop.dtype == np.uint8
    assert (crop == [10, 200, 30]).all()


@settings(max_examples=60)
@given(width=st.integers(1, 300), height=st.integers(1, 300), size=st.integers(1, 100), seed=st.integers(0, 9))
def test_it_is_the_published_rule_to_the_bit(width: int, height: int, size: int, seed: int) -> None:
    """Protects equality with ADM for every size and shape, in noise, where any shortcut shows: the rule in words."""
    assume(max(width, height) * size < 8000 * min(width, height))
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
    image = noise
    while min(image.size) >= 2 * size:
        image = image.resize((image.size[0] // 2, image.size[1] // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    pixels = np.array(image.resize([round(side * scale) for side in image.size], Image.Resampling.BICUBIC))
    top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
    assert (centre_crop(noise, size) == pixels[top : top + size, left : left + size]).all()


def test_a_picture_of_the_right_size_is_left_alone(picture: Callable[..., Image.Image]) -> None:
    """Protects stored crops from a second filtering."""
    image = picture(48, 48)
    assert (centre_crop(image, 48) == np.asarray(image)).all()


def test_the_centre_is_cut(picture: Callable[..., Image.Image]) -> None:
    """Protects the position: of 52 columns, 20 to 31 remain; of 53, the odd one out is at the right."""
    pixels = np.asarray(picture(53, 12))
    assert (centre_crop(Image.fromarray(pixels[:, :52]), 12) == pixels[:, 20:32]).all()
    assert (centre_crop(Image.fromarray(pixels), 12) == pixels[:, 20:32]).all()


def test_halving_is_a_mean_of_four() -> None:
    """Protects the box filter: a picture twice as large in blocks of 2 x 2 gives the blocks back."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert (centre_crop(Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)), 16) == pixels).all()


def test_one_pixel_fills_the_square() -> None:
    """Protects the smallest picture."""
    assert (centre_crop(Image.new("RGB", (1, 1), (1, 2, 3)), 64) == [1, 2, 3]).all()


def test_an_elongated_picture_is_refused_before_memory_is() -> None:
    """Protects memory: 1 x 60,000 pixels enlarged to a short side of 256 would take 11 GB."""
    with refused(ValueError, "1 x 60000 pixels", 256, "3,932,160,000", "178,956,970"):
        centre_crop(Image.new("RGB", (1, 60_000)), 256)
    assert centre_crop(Image.new("RGB", (1, 3_000)), 16).shape == (16, 16, 3)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"])
def test_other_modes_become_rgb_as_adm_does_it(mode: str, picture: Callable[..., Image.Image]) -> None:
    """Protects equality with the field: `convert("RGB")` first, then the crop."""
    image = picture(40, 30).convert("RGB" if mode == "PA" else mode).convert(mode)
    assert (centre_crop(image, 16) == centre_crop(image.convert("RGB"), 16)).all()


def test_alpha_is_dropped() -> None:
    """Protects the documented rule: what was transparent shows its colour, on no background."""
    image = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    assert (centre_crop(image, 8) == [200, 100, 50]).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 128])])
def test_a_transparent_palette_colour_is_dropped_silently(transparency: int | bytes) -> None:
    """Protects the log: Pillow warns of every such picture and gives the same pixels."""
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 8, 7, 200, 100, 50])
    image.info["transparency"] = transparency
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (centre_crop(image, 4) == [200, 100, 50]).all()


@pytest.mark.parametrize("value, expected", [(0, 0), (255, 0), (256, 1), (32768, 128), (65535, 255)])
def test_sixteen_bit_grey_keeps_its_high_byte(value: int, expected: int) -> None:
    """Protects 16-bit pictures from turning white: Pillow's own conversion clips at 255."""
    image = Image.fromarray(np.full((4, 4), value, dtype=np.uint16))
    assert image.mode == "I;16"
    assert (np.asarray(to_rgb(image)) == expected).all()
