"""The fast way through JPEG gives Pillow's pixels to the last bit; what it does not take, Pillow takes."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
import torch
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from repae.data import decode as module
from repae.data.crop import centre_crop
from repae.data.decode import decode, orientation
from repae.data.image_source import BrokenImageError

NOISY = np.random.default_rng(0).integers(0, 256, (131, 149, 3), dtype=np.uint8)


def jpeg(width: int, height: int, **options: object) -> bytes:
    stream = io.BytesIO()
    smooth = Image.fromarray(NOISY[: 2 + height // 8, : 2 + width // 8]).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    Image.blend(smooth, Image.fromarray(NOISY[:height, :width]), 0.3).save(stream, "JPEG", **options)
    return stream.getvalue()


def by_pillow(data: bytes, size: int, upright: bool = False) -> torch.Tensor:
    image = Image.open(io.BytesIO(data))
    image = ImageOps.exif_transpose(image) if upright else image
    return torch.from_numpy(centre_crop(image, size)).permute(2, 0, 1)


@settings(max_examples=60)
@given(
    width=st.integers(1, 149), height=st.integers(1, 131), quality=st.integers(1, 100),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]), progressive=st.booleans(), restart=st.integers(0, 3),
)  # fmt: skip
def test_the_fast_way_gives_pillows_pixels(
    width: int, height: int, quality: int, subsampling: str, progressive: bool, restart: int
) -> None:
    """Protects equality with everybody who prepares by Pillow: before the crop, not only after it."""
    data = jpeg(
        width, height, quality=quality, subsampling=subsampling, progressive=progressive, restart_marker_blocks=restart
    )
    fast = module._quick_jpeg(data, 10**6)
    assert fast is not None
    assert (np.asarray(fast) == np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).all()
    assert torch.equal(decode(data, 16), by_pillow(data, 16))


@pytest.mark.parametrize("mode, options", [("CMYK", {}), ("L", {}), ("RGB", {"keep_rgb": True})])
def test_other_colours_are_left_to_pillow(mode: str, options: dict[str, object]) -> None:
    """Protects print, grey and untransformed colours, which libjpeg's own conversion reads otherwise."""
    stream = io.BytesIO()
    Image.fromarray(NOISY[:40, :50]).convert(mode).save(stream, "JPEG", quality=90, **options)
    data = stream.getvalue()
    assert module._quick_jpeg(data, 10**6) is None
    assert torch.equal(decode(data, 16), by_pillow(data, 16))


@settings(max_examples=40)
@given(at=st.integers(2, 3000), value=st.integers(0, 255), cut=st.integers(10, 4000))
def test_a_damaged_jpeg_is_what_pillow_makes_of_it(at: int, value: int, cut: int) -> None:
    """Protects agreement on what is broken: the same pixels as Pillow's, or refused where Pillow refuses."""
    data = bytearray(jpeg(120, 100, quality=70))
    data[min(at, len(data) - 1)] = value
    data = bytes(data[:cut])
    try:
        expected = by_pillow(data, 16)
    except Exception:
        with pytest.raises(BrokenImageError):
            decode(data, 16)
    else:
        assert torch.equal(decode(data, 16), expected)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_upright(turn: int, kind: str) -> None:
    """Protects photographs: turned as the camera says where that is asked for, and only there."""
    exif = Image.Exif()
    exif[0x0112] = turn
    stream = io.BytesIO()
    Image.fromarray(NOISY[:40, :30]).save(stream, kind, exif=exif, quality=95)
    data = stream.getvalue()
    assert orientation(data) == turn
    assert torch.equal(decode(data, 16, upright=True), by_pillow(data, 16, upright=True))
    assert torch.equal(decode(data, 16), by_pillow(data, 16))
    assert torch.equal(decode(data, 16), decode(data, 16, upright=True)) == (turn == 1)


def test_an_orientation_that_cannot_be_read_is_upright() -> None:
    """Protects from cameras that write nonsense."""
    assert orientation(b"") == orientation(b"no image") == orientation(jpeg(20, 20)) == 1
    exif = Image.Exif()
    exif[0x0112] = 77
    assert orientation(jpeg(20, 20, exif=exif)) == 1


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects memory, on both ways, and names size, limit and remedy."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", None)
    stream = io.BytesIO()
    Image.new("RGB", (101, 100)).save(stream, "PNG")
    for data in (jpeg(101, 100), stream.getvalue()):
        for upright in (False, True):
            with refused(BrokenImageError, "101 x 100", "10,100 pixels", "10,000", "--data.most-pixels"):
                decode(data, 16, upright=upright, most_pixels=10_000)
