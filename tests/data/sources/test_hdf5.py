"""The reference's HDF5 file in its layout: bytes, list, labels, handles."""

from __future__ import annotations

import gc
import json
import os
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from errors import refused
from image_sources import encoded, picture, write_hdf5

from repae.config import UserError
from repae.data import ReferenceHdf5Config
from repae.data.image_source import BrokenImageError, ImageSource

FILES = {f"{own}/{i}.png": own.encode() * (i + 1) for i in range(3) for own in ("cat", "dog")}


def opened(path: Path, **options: object) -> ImageSource:
    return ReferenceHdf5Config(path=str(path), **options).source()


def test_the_reference_layout(tmp_path: Path) -> None:
    """Protects the files of those who come from the reference: by the folder and by the file, PNG bytes and labels."""
    write_hdf5(tmp_path / "set", FILES)
    for path in (tmp_path / "set", tmp_path / "set" / "images.h5"):
        source = opened(path)
        assert [source.read(i) for i in range(6)] == [b"cat", b"cat" * 2, b"cat" * 3, b"dog", b"dog" * 2, b"dog" * 3]
        assert source.labels.tolist() == [0, 0, 0, 1, 1, 1] and source.class_names == ("0", "1")
        assert source.name(0) == "00000/img00000000.png" and source.notes == ()
    assert opened(tmp_path / "set", labels="none").class_names == ("all",)


def test_pixels(tmp_path: Path) -> None:
    """Protects the way from its PNG to the batch."""
    image = picture(16, 16, 5)
    write_hdf5(tmp_path / "set", {"a/0.png": encoded(image, "PNG", compress_level=0)})
    data = ReferenceHdf5Config(path=str(tmp_path / "set"), resolution=16).open()
    assert (data.item(0)[0].permute(1, 2, 0).numpy() == np.asarray(image)).all()


@pytest.mark.parametrize("form", ["array", "opaque", "text"])
def test_dataset_json_in_every_form(form: str, tmp_path: Path) -> None:
    """Protects files of several versions of h5py and of the reference; one without the list is walked through."""
    text = json.dumps({"labels": [["00000/img00000000.png", 3], ["00000/img00000001.png", None]]})
    stored = {"array": np.frombuffer(text.encode(), dtype=np.uint8), "opaque": np.void(text.encode()), "text": text}
    with h5py.File(tmp_path / "images.h5", "w") as file:
        for i in range(3):
            file.create_dataset(f"00000/img{i:08d}.png", data=np.frombuffer(bytes([i, i]), dtype=np.uint8))
        file["dataset.json"] = stored[form]
    source = opened(tmp_path)
    assert [source.read(i) for i in range(len(source))] == [b"\0\0"]
    assert source.class_names == ("3",) and len(source.notes) == 3


def test_a_list_that_does_not_fit(tmp_path: Path) -> None:
    """Protects from a crash in a worker: what is listed and missing is one broken image; no list is no list."""
    write_hdf5(tmp_path / "set", FILES)
    with h5py.File(tmp_path / "set" / "images.h5", "a") as file:
        del file["00000/img00000001.png"]
    source = opened(tmp_path / "set")
    with refused(BrokenImageError, "listed", "not in the file"):
        source.read(1)
    assert source.read(2) == b"cat" * 3 and len(source.fingerprint) == 32
    (tmp_path / "set" / "images_h5.json").write_text("7")
    with refused(UserError, "set/images_h5.json", "list of names", "remove it"):
        opened(tmp_path / "set")


def test_what_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    """Protects the user: the file that was expected, or that it is cut off."""
    with refused(UserError, tmp_path / "images.h5", "give the folder", "images_h5.json"):
        opened(tmp_path)
    write_hdf5(tmp_path / "set", FILES)
    path = tmp_path / "set" / "images.h5"
    path.write_bytes(path.read_bytes()[:2000])
    with refused(UserError, path, "HDF5", "truncated file", "again"):
        opened(path)


def test_handles(tmp_path: Path) -> None:
    """Protects what the reference gets wrong: a handle is not pickled, belongs to one process, is closed with its
    source, and a source that could not be made leaves no error behind."""
    write_hdf5(tmp_path / "set", FILES)
    source = opened(tmp_path / "set")
    assert source.storage.file._file is None
    assert source.read(0) == b"cat"
    mine = source.storage.file._file
    assert pickle.loads(pickle.dumps(source)).storage.file._file is None
    child = os.fork()
    if child == 0:
        good = source.read(3) == b"dog" and source.storage.file._file is not mine
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert source.read(4) == b"dog" * 2 and source.storage.file._file is mine
    del source, mine
    gc.collect()
    with h5py.File(tmp_path / "set" / "images.h5", "a") as file:  # refused while somebody has it open
        assert "dataset.json" in file
