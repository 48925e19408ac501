"""Folders of real files: every format and colour mode, files that are broken, flips, what stands in for what."""

from __future__ import annotations

import errno
import io
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import assert_tells, refused
from image_sources import png_header
from PIL import Image

from repae.config import UserError
from repae.data import FolderConfig, ImageDataset, centre_crop
from repae.data.decode import orientation

Folder = Callable[[dict[str, tuple[int, int]]], Path]
Picture = Callable[..., Image.Image]


def save(image: Image.Image, path: Path, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def opened(root: Path, **options: object) -> ImageDataset:
    return FolderConfig(path=str(root), **{"resolution": 16, **options}).open()


def test_a_folder_is_a_data_set(folder: Folder, picture: Picture) -> None:
    """Protects the interface: counts, names, labels, shapes, and the crop of the right picture at every index."""
    root = folder({"cat/1.png": (20, 30), "cat/2.png": (16, 16), "dog/1.png": (500, 333)})
    data = opened(root)
    assert (len(data), data.channels, data.resolution, data.num_classes) == (3, 3, 16, 2)
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 0, 1]
    batch = data.batch(torch.tensor([2, 0, 2]))
    assert batch.images.shape == (3, 3, 16, 16)
    assert batch.images.dtype == torch.uint8
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.indices.tolist() == [2, 0, 2]
    for row, (size, seed) in enumerate([((500, 333), 2), ((20, 30), 0), ((500, 333), 2)]):
        expected = centre_crop(picture(*size, seed=seed), 16).transpose(2, 0, 1)
        assert (batch.images[row].numpy() == expected).all()
    image, label = data.item(1)
    assert (image.numpy() == np.asarray(picture(16, 16, seed=1)).transpose(2, 0, 1)).all()
    assert label == 0


FILES: dict[str, tuple[str, dict[str, object]]] = {
    "baseline.jpg": ("RGB", {"format": "JPEG", "quality": 95}),
    "progressive.jpg": ("RGB", {"format": "JPEG", "progressive": True}),
    "grey.jpeg": ("L", {"format": "JPEG"}),
    "cmyk.jpg": ("CMYK", {"format": "JPEG"}),
    "palette.png": ("P", {"format": "PNG"}),
    "alpha.png": ("RGBA", {"format": "PNG"}),
    "grey-alpha.png": ("LA", {"format": "PNG"}),
    "one-bit.png": ("1", {"format": "PNG"}),
    "interlaced.PNG": ("RGB", {"format": "PNG", "interlace": True}),
    "lossy.webp": ("RGB", {"format": "WEBP"}),
    "lossless-alpha.webp": ("RGBA", {"format": "WEBP", "lossless": True}),
    "really-a-png.jpg": ("RGB", {"format": "PNG"}),
    "really-a-webp.png": ("RGB", {"format": "WEBP"}),
    "Überraschung 漢字 🙂.png": ("RGB", {"format": "PNG"}),
    "n" * 240 + ".png": ("RGB", {"format": "PNG"}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_is_read_as_the_field_reads_it(name: str, tmp_path: Path, picture: Picture) -> None:
    """Protects formats and modes: the pixels are those of `Image.open`, `convert("RGB")` and the ADM crop."""
    mode, options = FILES[name]
    save(picture(37, 29).convert(mode), tmp_path / "all" / name, **options)
    data = opened(tmp_path)
    image, _ = data.item(0)
    expected = centre_crop(Image.open(tmp_path / "all" / name).convert("RGB"), 16)
    assert data.broken == {}
    assert (image.numpy() == expected.transpose(2, 0, 1)).all()


def test_sixteen_bit_png(tmp_path: Path) -> None:
    """Protects medical and depth pictures: a ramp over 16 bits is a ramp over 8, not white."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    save(Image.fromarray(ramp), tmp_path / "all" / "ramp.png")
    image, _ = opened(tmp_path).item(0)
    assert (image.numpy() == ramp >> 8).all()


def test_the_camera_orientation_is_not_applied(tmp_path: Path, picture: Picture) -> None:
    """Protects equality with ADM, which reads the pixels as they are stored."""
    exif = Image.Exif()
    exif[0x0112] = 6
    save(picture(16, 16), tmp_path / "all" / "rotated.jpg", exif=exif, quality=100, subsampling=0)
    save(picture(16, 16), tmp_path / "all" / "plain.jpg", quality=100, subsampling=0)
    data = opened(tmp_path)
    assert torch.equal(data.item(0)[0], data.item(1)[0])


@pytest.mark.parametrize("name", ["plain.jpg", "turned.jpg", "late.jpg", "plain.png", "turned.png", "turned.webp"])
def test_the_camera_orientation_is_found(name: str, picture: Picture) -> None:
    """Protects the count of turned photographs: the quick look into a JPEG says what Pillow says, wherever EXIF is."""
    exif, stream = Image.Exif(), io.BytesIO()
    if not name.startswith("plain"):
        exif[0x0112] = 6
    profile = bytes(range(256)) * 8 + b"\xff\xda" if name.startswith("late") else None
    picture(16, 16).save(
        stream, {"jpg": "JPEG"}.get(name[-3:], name.rpartition(".")[2]), exif=exif, icc_profile=profile
    )
    data = stream.getvalue()
    if name.startswith("late"):  # Pillow writes EXIF before the profile; others do not
        start, end = data.index(b"\xff\xe1"), data.index(b"\xff\xe2")
        after = end + 2 + int.from_bytes(data[end + 2 : end + 4], "big")
        data = data[:start] + data[end:after] + data[start:end] + data[after:]
    assert orientation(data) == (1 if name.startswith("plain") else 6)
    assert orientation(data[:30]) == orientation(b"") == orientation(b"\xff\xd8\xff") == 1


def test_one_pixel(tmp_path: Path) -> None:
    """Protects images smaller than the crop down to the smallest: they are enlarged."""
    save(Image.new("RGB", (1, 1), (9, 90, 200)), tmp_path / "all" / "dot.png")
    image, _ = opened(tmp_path).item(0)
    assert (image == torch.tensor([9, 90, 200], dtype=torch.uint8)[:, None, None]).all()


def broken_files() -> dict[str, tuple[bytes, str]]:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "JPEG")
    jpeg = stream.getvalue()
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "PNG")
    png = stream.getvalue()
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(stream, "WEBP")
    webp = stream.getvalue()
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(stream, "GIF")
    elongated = io.BytesIO()
    Image.new("RGB", (1, 3_000_000)).save(elongated, "PNG")
    damaged = bytearray(png)
    damaged[60:90] = bytes(30)
    return {
        "empty.jpg": (b"", "the file is empty"),
        "text.png": (b"not an image at all", "it is no JPEG, PNG or WebP image"),
        "really-a-gif.jpg": (stream.getvalue(), "it is no JPEG, PNG or WebP image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        "truncated.png": (png[: len(png) // 2], "truncated"),
        "truncated.webp": (webp[: len(webp) // 2], ""),
        "header-only.jpg": (jpeg[:30], ""),
        "damaged.png": (bytes(damaged), ""),
        "bomb.png": (png_header(20_000, 20_000), "400000000 pixels"),
        "elongated.png": (elongated.getvalue(), "1 x 3000000 pixels"),
    }


BROKEN = broken_files()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_skipped_or_stops_the_run(name: str, folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """Protects long runs: the next readable image stands in, with its own label and index, counted and warned of once;
    with "raise", one line names the file, the reason and the remedy."""
    content, reason = BROKEN[name]
    root = folder({"a/0.png": (16, 16), "b/z.png": (16, 16)})
    (root / "a" / name).write_bytes(content)
    data = opened(root)
    index = [data.source.name(i) for i in range(3)].index(f"a/{name}")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            batch = data.batch(torch.tensor([index, index - 1, index + 1]))
    assert batch.indices.tolist() == [index + 1, index - 1, index + 1]
    assert batch.labels.tolist() == [1, 0, 1]
    assert torch.equal(batch.images[0], batch.images[2])
    assert list(data.broken) == [index]
    (message,) = [record.getMessage() for record in caplog.records]
    assert_tells(message, f"a/{name}", "1 of 3", "left out")
    with refused(
        UserError, f"a/{name}", reason or "cannot be read", "repair or remove it", "--data.on-error skip"
    ) as error:
        opened(root, on_error="raise").item(index)
    assert "\n" not in str(error.value)


def test_a_link_to_nothing_is_a_broken_file(folder: Folder) -> None:
    """Protects sets made of links."""
    root = folder({"a/0.png": (16, 16)})
    (root / "a" / "1.png").symlink_to(root / "nowhere.png")
    data = opened(root)
    assert data.batch(torch.tensor([1])).indices.tolist() == [0]
    assert data.broken == {1: "No such file or directory"}


def test_the_last_image_is_replaced_by_the_first(folder: Folder) -> None:
    """Protects the end of the list, and runs of broken files: the stand-in is a function of the index alone."""
    root = folder({f"a/{i}.png": (16, 16) for i in range(6)})
    for i in (2, 3, 5):
        (root / "a" / f"{i}.png").write_bytes(b"")
    expected = [0, 1, 4, 4, 4, 0]
    data = opened(root)
    assert data.batch(torch.arange(6)).indices.tolist() == expected
    assert [opened(root).batch(torch.tensor([i])).indices.item() for i in range(6)] == expected


def test_only_broken_files_end_the_run_in_words(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against an endless search, in a small set and in a large one whose disk went away."""
    root = folder({f"a/{i}.png": (16, 16) for i in range(4)})
    for i in range(3):
        (root / "a" / f"{i}.png").write_bytes(b"")
    assert opened(root).batch(torch.tensor([0])).indices.tolist() == [3]
    monkeypatch.setattr("repae.data.images.MOST_SKIPPED", 3)
    with refused(UserError, "none of 3", "a/0.png", "the file is empty", root):
        opened(root).batch(torch.tensor([0]))


def test_trouble_of_the_machine_is_not_a_broken_image(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects agreement between processes: a failing disk must not change the data of one of them."""
    data = opened(folder({"a/0.png": (16, 16), "a/1.png": (16, 16)}))

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("pathlib.Path.read_bytes", fail)
    with refused(UserError, "a/0.png", "Input/output error", "not the image"):
        data.item(0)
    assert data.broken == {}


def test_many_broken_files_do_not_flood_the_log(folder: Folder, caplog: pytest.LogCaptureFixture) -> None:
    """Protects the screen: the first ten are named, then every doubling."""
    root = folder({f"a/{i:02}.png": (4, 4) for i in range(41)})
    for i in range(40):
        (root / "a" / f"{i:02}.png").write_bytes(b"")
    data = opened(root)
    data.batch(torch.arange(41))
    assert len(data.broken) == 40
    assert len(caplog.records) == 12
    assert_tells(caplog.records[-1].getMessage(), "32 of 41", "left out")


def test_flips_mirror_left_and_right(folder: Folder) -> None:
    """Protects the flip: the asked-for images only, and only from left to right; items never."""
    data = opened(folder({"a/0.png": (16, 16), "a/1.png": (16, 16)}), flip=True)
    assert data.flip
    plain = data.batch(torch.tensor([0, 1])).images
    flipped = data.batch(torch.tensor([0, 1]), torch.tensor([False, True])).images
    assert torch.equal(flipped[0], plain[0])
    assert torch.equal(flipped[1], plain[1].flip(-1))
    assert not torch.equal(plain[1], plain[1].flip(-1))
    assert torch.equal(data.item(1)[0], plain[1])


def test_the_fingerprint_follows_the_files(folder: Folder) -> None:
    """Protects caches: equal for an equal folder wherever it lies, another one for a new, changed or renamed file."""
    root = folder({"a/0.png": (16, 16), "b/1.png": (16, 16)})
    first = opened(root).fingerprint
    assert opened(root).fingerprint == first
    assert opened(root, flip=True, on_error="raise").fingerprint == first
    assert opened(root, resolution=8).fingerprint != first
    moved = root.rename(root.parent / "moved")
    assert opened(moved).fingerprint == first
    (moved / "a" / "0.png").rename(moved / "a" / "2.png")
    assert opened(moved).fingerprint != first
    (moved / "a" / "2.png").rename(moved / "a" / "0.png")
    with (moved / "a" / "0.png").open("ab") as file:
        file.write(b"x")
    assert opened(moved).fingerprint != first


def test_a_data_set_can_be_sent_to_another_process(folder: Folder) -> None:
    """Protects workers that are started and not forked: no open file, no lock inside."""
    data = opened(folder({"a/0.png": (16, 16), "b/1.png": (20, 16)}))
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy.batch(torch.arange(2)).images, data.batch(torch.arange(2)).images)


def test_an_index_outside_is_refused(folder: Folder) -> None:
    """Protects against Python's reading of negative indices."""
    data = opened(folder({"a/0.png": (16, 16)}))
    for index in (-1, 1):
        with refused(IndexError, f"{index}..{index}", "0..0"):
            data.item(index)


@pytest.mark.parametrize(
    "field, value, facts",
    [
        ("resolution", 0, [0, "at least 4", "at most 8192"]),
        ("on_error", "ignore", ["'ignore'", "'skip', 'raise'"]),
        ("path", "", ["''", "length at least 1"]),
        ("flips", True, [True, "did you mean 'flip'"]),
    ],
)
def test_wrong_fields_are_refused_by_name(field: str, value: object, facts: list[object]) -> None:
    """Protects the user: the field, the value and what is allowed are named."""
    with refused(UserError, field, *facts):
        FolderConfig(**{"path": "x", field: value})
