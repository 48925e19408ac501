from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from repae.sampling import NpzOutput, PngOutput, ShardOutput
from repae.sampling.files import save_npz

FORMATS = [NpzOutput, PngOutput, ShardOutput]


def now(function, *arguments):
    function(*arguments)


def _images(count, channels=3, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size), np.uint8)


def _numbers(output):
    return sorted({number for numbers in output.present() for number in numbers})


def _written(form, folder, images, cuts):
    output = form(folder, len(images))
    for start, stop in zip([0, *cuts], [*cuts, len(images)]):
        output.write(start, images[start:stop], now)
    return output


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_in_any_order_are_the_list(form, channels, tmp_path):
    """What is there is known, the first images can be looked at, and nothing is lost, doubled or changed."""
    images, output = _images(10, channels), form(tmp_path, 10)
    assert output.present() == []
    for start, stop in ((6, 10), (0, 3), (3, 6)):
        output.write(start, images[start:stop], now)
        assert set(range(start, stop)) <= set(_numbers(output))
    assert _numbers(output) == list(range(10))
    assert np.array_equal(output.take(5), images[:5].transpose(0, 2, 3, 1))
    assert np.array_equal(output.take(10), images.transpose(0, 2, 3, 1))


def test_the_npz_file_is_what_evaluation_suites_read(tmp_path):
    """arr_0 is [N, H, W, C] uint8 with labels beside it; nothing else is left, and doing it again changes nothing."""
    images, labels = _images(9), np.arange(9)
    output = _written(NpzOutput, tmp_path, images, [4, 8])
    output.finish(labels)
    whole = output.path.read_bytes()
    with np.load(output.path) as file:
        assert sorted(file.files) == ["arr_0", "labels"]
        assert file["arr_0"].dtype == np.uint8 and np.array_equal(file["arr_0"], images.transpose(0, 2, 3, 1))
        assert file["labels"].tolist() == list(range(9))
    output.finish(labels)
    assert output.path.read_bytes() == whole and _numbers(output) == list(range(9))
    assert [path.name for path in tmp_path.iterdir()] == ["samples.npz"]


def test_shards_of_several_batch_sizes_overlap_without_harm(tmp_path):
    """Who goes on with another batch size draws some images twice: each stands once in the result."""
    images = _images(12)
    output = NpzOutput(tmp_path, 12)
    for start, stop in ((0, 4), (4, 8), (5, 10), (0, 5), (10, 12)):
        output.write(start, images[start:stop], now)
    output.finish(np.zeros(12, np.int64))
    assert np.array_equal(np.load(output.path)["arr_0"], images.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("form", FORMATS)
def test_files_that_are_not_whole_do_not_count(form, tmp_path):
    """A truncated file, an empty one and a temporary one are as if they were not there."""
    output = _written(form, tmp_path, _images(6), [2, 4])
    folder = tmp_path / ("png" if form is PngOutput else "shards")
    files = sorted(folder.iterdir())
    files[-1].write_bytes(files[-1].read_bytes()[:-3])
    files[0].write_bytes(b"")
    (folder / ".tmp-0123").write_bytes(b"half")
    assert _numbers(output) == ([1, 2, 3, 4] if form is PngOutput else [2, 3])


@pytest.mark.parametrize("form", [PngOutput, ShardOutput])
def test_folders_are_finished_with_labels(form, tmp_path):
    """What a killed process had begun goes, and the labels come beside the images."""
    output = _written(form, tmp_path, _images(4), [2])
    (output.path / ".tmp-0123").write_bytes(b"half")
    output.finish(np.array([3, 1, 2, 0]))
    assert np.load(output.path / "labels.npy").tolist() == [3, 1, 2, 0]
    assert not list(output.path.glob(".*")) and _numbers(output) == list(range(4))


def test_pngs_are_grey_or_colour(tmp_path):
    """Named by number, as other suites read them."""
    _written(PngOutput, tmp_path / "grey", _images(1, 1), [])
    _written(PngOutput, tmp_path / "colour", _images(1, 3), [])
    assert Image.open(tmp_path / "grey" / "png" / "000000.png").mode == "L"
    assert Image.open(tmp_path / "colour" / "png" / "000000.png").mode == "RGB"


def test_a_large_npz_never_is_in_memory(tmp_path):
    """Fifty thousand images of 256 px are ten gigabytes: one batch at a time is what is held."""
    part = np.zeros((64, 64, 64, 3), np.uint8)
    tracemalloc.start()
    save_npz(tmp_path / "large.npz", (part for _ in range(40)), (2560, 64, 64, 3), np.zeros(2560, np.int64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "large.npz").stat().st_size > 40 * part.nbytes and peak < part.nbytes
