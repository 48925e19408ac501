"""The same set of difficult files, put into every kind of source by programs that are not ours."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from repae.data import (
    ArchiveConfig,
    FolderConfig,
    HuggingFaceConfig,
    ImagesConfig,
    LabelledConfig,
    ReferenceHdf5Config,
    WebDatasetConfig,
)

Files = dict[str, bytes]


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is this large and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@cache
def difficult_files() -> Files:
    """Good and broken images by name, each in the folder of its class; no two good ones are alike."""
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = np.linspace(0, 65535, 24 * 20).astype(np.uint16).reshape(20, 24)
    jpeg, png = encoded(picture(64, 48, 1), "JPEG"), encoded(picture(64, 48, 2), "PNG")
    return {
        "cat/baseline.jpg": encoded(picture(37, 29, 3), "JPEG", quality=95),
        "cat/progressive.jpg": encoded(picture(37, 29, 4), "JPEG", progressive=True),
        "cat/cmyk.jpeg": encoded(picture(37, 29, 5).convert("CMYK"), "JPEG"),
        "cat/rotated.jpg": encoded(picture(37, 29, 6), "JPEG", exif=exif),
        "cat/empty.jpg": b"",
        "cat/" + "n" * 200 + ".png": encoded(picture(20, 20, 7), "PNG"),
        "dog/palette.png": encoded(picture(37, 29, 8).convert("P"), "PNG"),
        "dog/alpha.png": encoded(picture(37, 29, 9).convert("RGBA"), "PNG"),
        "dog/sixteen-bit.png": encoded(Image.fromarray(deep), "PNG"),
        "dog/lossy.webp": encoded(picture(37, 29, 10), "WEBP"),
        "dog/really-a-png.jpg": encoded(picture(37, 29, 11), "PNG"),
        "dog/truncated.jpg": jpeg[: len(jpeg) // 2],
        "dog/truncated.png": png[: len(png) // 2],
        "Überraschung 漢字/🙂.png": encoded(picture(37, 29, 12), "PNG"),
        "Überraschung 漢字/bomb.png": png_header(20_000, 20_000),
        "Überraschung 漢字/dot.png": encoded(Image.new("RGB", (1, 1), (9, 90, 200)), "PNG"),
        "Überraschung 漢字/large.jpg": encoded(picture(5000, 4000, 13), "JPEG", quality=30),
        "Überraschung 漢字/text.webp": b"no image at all",
    }


def classes(files: Files) -> list[str]:
    return sorted({name.partition("/")[0] for name in files})


def write_folder(root: Path, files: Files) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def labels_of(files: Files) -> list[tuple[str, str]]:
    return [(name, name.partition("/")[0]) for name in reversed(files)]


def write_zip(path: Path, files: Files, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_tar(path: Path, files: Files, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_shards(root: Path, files: Files, *, label: str = "cls") -> Path:
    """Two shards by WebDataset's own writer; its names have no dots, and their numbers keep the order of the files."""
    import webdataset

    root.mkdir(parents=True)
    names, order = classes(files), in_order(files)
    for number, part in enumerate((order[:7], order[7:])):
        with webdataset.TarWriter(str(root / f"{number:03d}.tar")) as shard:
            for place, name in enumerate(part):
                own = name.partition("/")[0]
                value = {"cls": names.index(own), "json": {"label": own, "other": 1}, "txt": own}[label]
                suffix = name.rpartition(".")[2]
                shard.write({"__key__": f"{place:04d}", suffix: files[name], label: value})
    return root


def in_order(files: Files) -> list[str]:
    """Names as a data set orders them: by class, then by name."""
    return sorted(files, key=lambda name: (name.partition("/")[0], name))


def table(files: Files) -> Any:
    """Rows with the image as `datasets` stores it."""
    import datasets

    order = in_order(files)
    rows = {
        "image": [{"bytes": files[name], "path": name} for name in order],
        "label": [classes(files).index(name.partition("/")[0]) for name in order],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes(files))})
    return datasets.Dataset.from_dict(rows, features=features)


def write_hdf5(root: Path, files: Files) -> Path:
    """In the layout of the reference's preprocessing: numbered names in folders, arrays of bytes, the list beside."""
    import h5py

    root.mkdir(parents=True)
    order = in_order(files)
    numbered = [f"{i // 1000:05d}/img{i:08d}{Path(name).suffix}" for i, name in enumerate(order)]
    labels = [[new, classes(files).index(name.partition("/")[0])] for new, name in zip(numbered, order)]
    with h5py.File(root / "images.h5", "w") as file:
        for new, name in zip(numbered, order):
            file.create_dataset(new, data=np.frombuffer(files[name], dtype=np.uint8))
        file.create_dataset("dataset.json", data=json.dumps({"labels": labels}))
    (root / "images_h5.json").write_text(json.dumps([*numbered, "dataset.json"]))
    return root


def _labelled_json(root: Path, files: Files) -> ImagesConfig:
    write_folder(root, files)
    (root / "dataset.json").write_text(json.dumps({"labels": labels_of(files)}))
    return LabelledConfig(path=str(root))


def _labelled_csv(root: Path, files: Files) -> ImagesConfig:
    write_folder(root, files)
    lines = [f'"{name}",{own}' for name, own in labels_of(files)]
    (root / "labels.csv").write_text("\n".join(["file,class", *lines]), encoding="utf-8")
    return LabelledConfig(path=str(root))


def _zip(root: Path, files: Files) -> ImagesConfig:
    return ArchiveConfig(path=str(write_zip(root.with_suffix(".zip"), files, zipfile.ZIP_DEFLATED)))


def _zip_json(root: Path, files: Files) -> ImagesConfig:
    listed = {"dataset.json": json.dumps({"labels": labels_of(files)}).encode()}
    return ArchiveConfig(path=str(write_zip(root.with_suffix(".zip"), files | listed)))


def _tar(root: Path, files: Files) -> ImagesConfig:
    return ArchiveConfig(path=str(write_tar(root.with_suffix(".tar"), files)))


def _tar_csv(root: Path, files: Files) -> ImagesConfig:
    lines = [f"{name};{own}" for name, own in labels_of(files)]
    return ArchiveConfig(
        path=str(
            write_tar(root.with_suffix(".tar"), files | {"labels.csv": "\n".join(lines).encode()}, tarfile.GNU_FORMAT)
        )
    )


def _webdataset(root: Path, files: Files) -> ImagesConfig:
    names = root.with_suffix(".txt")
    names.write_text("\n".join(classes(files)), encoding="utf-8")
    shards = write_shards(root, files)
    return WebDatasetConfig(path=str(shards / "{000..001}.tar"), cache=str(root / "cache"), classes=str(names))


def _parquet(root: Path, files: Files) -> ImagesConfig:
    root.mkdir()
    table(files).to_parquet(root / "train.parquet")
    return HuggingFaceConfig(path=str(root / "train.parquet"), cache=str(root / "cache"))


def _saved(root: Path, files: Files) -> ImagesConfig:
    table(files).save_to_disk(str(root))
    return HuggingFaceConfig(path=str(root))


def _hdf5(root: Path, files: Files) -> ImagesConfig:
    return ReferenceHdf5Config(path=str(write_hdf5(root, files)))


MAKERS: dict[str, Callable[[Path, Files], ImagesConfig]] = {
    "folder": lambda root, files: FolderConfig(path=str(write_folder(root, files))),
    "dataset.json": _labelled_json,
    "csv": _labelled_csv,
    "zip": _zip,
    "zip with dataset.json": _zip_json,
    "tar": _tar,
    "tar with csv": _tar_csv,
    "webdataset": _webdataset,
    "parquet": _parquet,
    "save_to_disk": _saved,
    "reference-hdf5": _hdf5,
}
"""Every kind of source: writes the files below (or beside) a folder and says how they are read."""
