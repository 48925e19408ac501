from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refused
from evaluation.fakes import Memory
from npz_files import write_npz
from PIL import Image

from repae.config import UserError
from repae.evaluation import ImagesInMemory, ImagesOfDataset, open_images
from repae.evaluation.images import check_same_size


def _images(n=5, height=8, width=8, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (n, channels, height, width), dtype=torch.uint8, generator=generator)


def _all(images, size=2):
    return torch.cat(list(images.batches(size)))


def _folder(root, images, classes=None):
    for number, image in enumerate(images):
        path = root / (classes[number] if classes else "") / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return root


@pytest.mark.parametrize("compressed", [False, True])
def test_adms_file_is_streamed(tmp_path, compressed):
    """The pixels, in parts of any size, and the labels, from a file with and without compression."""
    images, labels = _images(7, 6, 4), torch.arange(7)
    path = tmp_path / "samples.npz"
    if compressed:
        np.savez_compressed(path, images.permute(0, 2, 3, 1).numpy(), labels.numpy())
    else:
        write_npz(path, images, labels)
    found = open_images(path)
    assert len(found) == 7 and found.shape == (3, 6, 4) and torch.equal(found.labels, labels)
    assert torch.equal(_all(found, 3), images) and torch.equal(_all(found, 100), images)


def test_a_set_has_one_digest_wherever_it_lies(tmp_path):
    """Memory, npz and PNG folder with the same pixels agree; a pixel, the order or the size makes another."""
    images = _images()
    write_npz(tmp_path / "a.npz", images, torch.zeros(5).long())
    same = [ImagesInMemory("a", images), open_images(tmp_path / "a.npz"), open_images(_folder(tmp_path / "f", images))]
    assert len({found.digest for found in same}) == 1
    touched = images.clone()
    touched[2, 1, 3, 3] ^= 1
    others = [touched, images.flip(0), images[:4], images.reshape(5, 3, 4, 16)]
    assert len({ImagesInMemory("b", other).digest for other in others} | {same[0].digest}) == 5


def test_a_data_set_is_known_by_fingerprint_and_indices():
    """The images at the indices, unmirrored; other indices are another set."""
    dataset = Memory(_images(9), torch.arange(9) % 3, 3)
    found = ImagesOfDataset("data", dataset, torch.tensor([4, 0, 7]))
    assert torch.equal(_all(found), dataset.images[[4, 0, 7]]) and found.labels.tolist() == [1, 0, 1]
    assert found.digest != ImagesOfDataset("data", dataset, torch.tensor([0, 4, 7])).digest


def test_a_folder_is_read_by_name(tmp_path):
    """Sorted, hidden files and other files left out; subfolders are classes where every image lies in one."""
    images = _images(4)
    root = _folder(tmp_path / "classes", images, ["b", "a", "b", "a"])
    (root / ".hidden").mkdir()
    (root / ".hidden" / "x.png").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    found = open_images(root)
    assert torch.equal(_all(found), images[[1, 3, 0, 2]]) and found.labels.tolist() == [0, 0, 1, 1]
    assert open_images(_folder(tmp_path / "flat", images)).labels is None


def test_a_folder_is_cropped_only_when_asked(tmp_path):
    """Images of several sizes are refused with the remedy, and cropped as training crops them when that is said."""
    root = _folder(tmp_path / "mixed", [*_images(1, 12, 20), *_images(1, 9, 9)])
    with refused(UserError, "001.png", "9 x 9 px", "'000.png' 20 x 12 px", "--resolution 256"):
        _all(open_images(root))
    assert _all(open_images(root, 8)).shape == (2, 3, 8, 8)


@pytest.mark.parametrize(
    ("array", "facts"),
    [
        (np.zeros((4, 8, 8), np.uint8), ["[4, 8, 8]", "grey", "[N, H, W, 3]", "three times"]),
        (np.zeros((4, 8, 8, 1), np.uint8), ["[4, 8, 8, 1]", "grey", "[N, H, W, 3]", "three times"]),
        (np.zeros((4, 3, 8, 8), np.uint8), ["[4, 3, 8, 8]", "[N, H, W, 3]"]),
        (np.zeros((4, 8, 8, 3), np.float32), ["float32", "uint8", "0..255", "[0, 1]", "(255 * x).round()"]),
        (np.zeros((4, 8, 8, 3), np.int64), ["int64", "uint8", "0..255"]),
        (np.zeros((0, 8, 8, 3), np.uint8), ["no image", "give at least one"]),
        (
            np.asfortranarray(np.zeros((4, 8, 8, 3), np.uint8)),
            ["Fortran's order", "save it again, C-ordered"],
        ),
    ],
)
def test_wrong_arrays_are_refused(tmp_path, array, facts):
    """Grey, channels first, floats in [0, 1], wide integers, nothing, another order of memory."""
    np.savez(tmp_path / "a.npz", array)
    with refused(UserError, "arr_0", "a.npz", *facts):
        open_images(tmp_path / "a.npz")


def test_wrong_places_are_refused(tmp_path):
    """Nothing there, an empty folder, grey and broken pictures, a file of another kind, a cut archive."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no image")
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.npz").write_text("no archive")
    np.savez(tmp_path / "c.npz", other=np.zeros(3))
    (tmp_path / "grey").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "grey" / "a.png")
    for name, facts in {
        "nowhere": [".npz", "arr_0"], "empty": ["JPEG, PNG or WebP", "correct the path"],
        "broken": ["a.png", "repair or remove it"], "a.txt": ["a folder", ".npz", "give images"],
        "b.npz": ["not a zip file", "copy it again"], "c.npz": ["no arr_0", "holds other", "save"],
        "grey": ["a.png", "mode L", "RGB", "--resolution"],
    }.items():  # fmt: skip
        with refused(UserError, tmp_path / name, *facts):
            open_images(tmp_path / name)
    with refused(UserError, "generated", "float32", "uint8", "(255 * x).round()"):
        ImagesInMemory("generated", torch.rand(2, 3, 8, 8))


def test_other_sizes_are_not_compared():
    """Both sizes are named."""
    with refused(UserError, "a holds", "8 x 8 px", "reference b", "4 x 16 px", "3 channels", "images of one size"):
        check_same_size(ImagesInMemory("a", _images()), ImagesInMemory("b", _images(5, 16, 4)))
