"""`repae prepare` from words to files, in process and, killed, as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from errors import assert_tells
from PIL import Image

from repae.cli import main

TINY = ["--resolution", "16", "--per-shard", "2", "--workers", "1"]


@pytest.fixture
def photos(tmp_path: Path) -> Callable[[int], Path]:
    def make(count: int) -> Path:
        random = np.random.default_rng(0)
        for number in range(count):
            path = tmp_path / "photos" / ("cat", "dog")[number % 2] / f"{number:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
        (tmp_path / "photos" / "dog" / "broken.png").write_bytes(b"")
        return tmp_path / "photos"

    return make


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_from_words_to_files_and_to_training(
    photos: Callable[[int], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects the way of a user: prepare, verify, and the dry run of a training on the result; then damage."""
    source, out = photos(6), tmp_path / "out"
    assert main(["prepare", str(source), "--out", str(out), *TINY]) == 0
    words, progress = capsys.readouterr()
    assert "7 images of 16 px into 4 shards, 1 process(es)" in words and "prepare 7/7" in progress
    assert "6 images, 2 classes of 3 to 3, 4 shards" in words and "dog/broken.png: the file is empty" in words
    assert (out / "contact-sheet.png").is_file()
    assert main(["prepare", "--verify", str(out)]) == 0
    assert "out is whole: 6 images in 4 shards" in capsys.readouterr().out
    options = ["--data.kind", "shards", "--data.path", str(out), "--dry-run"]
    assert main(["train", "folder", *options]) == 0
    assert "6 images of 16 px, 2 classes" in capsys.readouterr().out
    (out / "shards" / "000001.images.npy").write_bytes(b"")
    assert main(["prepare", "--verify", str(out)]) == 2
    assert_tells(capsys.readouterr().err, "000001.images.npy", "0 bytes", "delete")


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ([], ["source of images", "missing"]),
        (["nowhere", "--out", "x"], ["'nowhere'", "correct the path"]),
        (["photos"], ["--out is missing"]),
        (["photos", "more", "--out", "x"], ["'more'", "too many"]),
        (["photos", "--out", "x", "--resolutoin", "8"], ["resolutoin", 8, "did you mean 'resolution'"]),
        (["photos", "--out", "x", "--resolution", "2"], ["resolution is 2", "at least 4"]),
        (["photos", "--out", "x", "--part", "5/4"], ["part", "'5/4'", "K/N"]),
        (["photos", "--out", "out"], ["out", "resolution was 16", 256, "another --out"]),
        (["photos", "--out", "photos"], ["photos", "not empty", "with --out"]),
        (["photos", "--out", "photos/cat/0000.png"], ["photos/cat/0000.png", "cannot be written"]),
        (["--verify", "nowhere"], ["nowhere", "no manifest.json", "`repae prepare`"]),
        (["--verify", "out", "--workers", "2"], ["--workers", "no option"]),
    ],
)  # fmt: skip
def test_wrong_words_are_refused_in_one_line(
    words: list[str], facts: list[object], photos: Callable[[int], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Protects the user: status 2, one line that says what would be right, and nothing is written."""
    photos(2)
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "photos", "--out", "out", *TINY]) == 0
    before = tree(tmp_path)
    capsys.readouterr()
    assert main(["prepare", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert_tells(error, *facts)
    assert tree(tmp_path) == before


def test_no_room_is_refused_in_one_line(
    photos: Callable[[int], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protects a night: before anything is decoded."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    assert main(["prepare", str(photos(2)), "--out", str(tmp_path / "out"), *TINY]) == 2
    assert_tells(capsys.readouterr().err, "need 2.84 kB", tmp_path / "out")


@pytest.mark.slow
def test_a_killed_command_goes_on(photos: Callable[[int], Path], tmp_path: Path) -> None:
    """Protects the whole way once: a real process with two workers is killed, the same command ends byte for byte as
    an undisturbed one."""
    source, out = photos(60), tmp_path / "out"
    slow = "import time, repae.preparation.images as job; f = job.orientation\n"
    slow += (
        "job.orientation = lambda data: time.sleep(0.02) or f(data)\nimport sys, repae.cli; sys.exit(repae.cli.main())"
    )
    words = ["prepare", str(source), "--out", str(out), *TINY[:-1], "2"]
    process = subprocess.Popen([sys.executable, "-c", slow, *words], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list(out.glob("shards/*.json"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL and not (out / "manifest.json").exists()
    assert main(words) == 0
    assert main(["prepare", str(source), "--out", str(tmp_path / "whole"), *TINY]) == 0
    assert tree(out) == tree(tmp_path / "whole")
