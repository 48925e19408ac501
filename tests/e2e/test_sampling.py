"""The same 64 images however they are drawn: in one batch or in many, by two processes, killed and gone on with."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from processes import child_environment, free_port

from repae.cli import main

pytestmark = pytest.mark.slow

TRAIN = {
    "start.kind": "scratch",
    "loop.steps": 2,
    "loop.batch-size": 8,
    "backbone.hidden-size": 32,
    "backbone.depth": 2,
    "backbone.num-heads": 2,
    "preview.sampler.steps": 1,
    "preview.per-class": 1,
    "track.tensorboard": "false",
    "track.progress": "false",
    "runtime.device": "cpu",
}
DRAW = {
    "num": 64,
    "labels": "random",
    "seed": 7,
    "sampler.kind": "euler-maruyama",
    "sampler.steps": 3,
    "guidance.scale": 1.5,
    "guidance.high": 0.7,
    "precision": "fp32",
    "progress": "false",
}


def words(options: dict[str, object]) -> list[str]:
    return [word for field, value in options.items() for word in (f"--{field}", str(value))]


IMPORTS = "import hashlib, importlib, os, signal, sys, time\nfrom pathlib import Path\n"


def watch(folder: str, kill_in_the_batch_of: int | None = None) -> None:
    """From now on every image's noise leaves its digest in `folder`; SIGKILL comes in the middle of one batch."""
    module = importlib.import_module("repae.sampling.generate")
    first, later = module.image_noise, module.step_noise

    def leave(drawn, numbers, step):
        for number, noise in zip(numbers, drawn):
            name = f"{number}-{step}-{hashlib.sha256(noise.numpy().tobytes()).hexdigest()[:16]}"
            Path(folder, name).touch()
        if kill_in_the_batch_of in numbers and step == 1:
            while not list(Path(folder).parent.glob("*/shards/*.npy")):  # something to go on from
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return drawn

    module.image_noise = lambda seed, numbers, shape: leave(first(seed, numbers, shape), numbers, "start")
    module.step_noise = lambda seed, numbers, step, shape: leave(later(seed, numbers, step, shape), numbers, step)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, with a null class."""
    runs = tmp_path_factory.mktemp("runs")
    assert main(["train", "digits-sit", *words(TRAIN), "--name", "tiny", "--runs", str(runs)]) == 0
    return runs / "tiny"


def command(run: Path, out: Path, batch: int) -> list[str]:
    """`repae sample`, and a folder for the noise."""
    (out.parent / "noise").mkdir(exist_ok=True, parents=True)
    return ["sample", str(run), *words({**DRAW, "batch-size": batch, "out": out})]


def here(run: Path, out: Path, batch: int, capsys: pytest.CaptureFixture[str]) -> str:
    """It in this process; what it says."""
    argv, module = command(run, out, batch), importlib.import_module("repae.sampling.generate")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("image_noise", "step_noise"):
            patch.setattr(module, name, getattr(module, name))  # to be put back
        watch(str(out.parent / "noise"))
        capsys.readouterr()
        assert main(argv) == 0
    return capsys.readouterr().out


def start(run: Path, out: Path, batch: int, kill_at: int | None = None, **environment: str) -> subprocess.Popen[str]:
    """It in a process of its own."""
    argv = command(run, out, batch)
    program = f"from __future__ import annotations\n{IMPORTS}{inspect.getsource(watch)}"
    program += f"watch({str(out.parent / 'noise')!r}, {kill_at})\nfrom repae.cli import main\nsys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", program, *argv],
        env=child_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    out, error = process.communicate(timeout=120)
    assert process.returncode == status, error
    return out


def drawn(out: Path) -> tuple[np.ndarray, list[int], list[str]]:
    """Images, labels, and the noise of every image and step."""
    with np.load(out / "samples.npz") as file:
        return file["arr_0"], file["labels"].tolist(), sorted(path.name for path in (out.parent / "noise").iterdir())


def test_the_same_images_however_they_are_drawn(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise and labels bit for bit, pixels within a level, and bit for bit where the batches are the same."""
    whole, sevens, two, killed = (tmp_path / name / "out" for name in ("whole", "sevens", "two", "killed"))
    assert "64 images in " in here(run, whole, 64, capsys)
    here(run, sevens, 7, capsys)
    launch = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    pair = [start(run, two, 7, RANK=str(rank), LOCAL_RANK=str(rank), **launch) for rank in range(2)]
    first, second = (finish(process) for process in pair)
    assert "64 images in " in first and second == ""

    finish(start(run, killed, 7, kill_at=20), status=-signal.SIGKILL)
    before = {path.name for path in (killed / "shards").glob("[0-9]*.npy")}
    assert before and before <= {"0000000-0000006.npy", "0000007-0000013.npy"}
    assert f"{64 - 7 * len(before)} images in " in here(run, killed, 7, capsys)
    assert "all 64 images were there" in here(run, killed, 7, capsys)

    images, labels, noise = drawn(whole)
    assert images.shape == (64, 32, 32, 1) and images.std() > 1 and len(set(labels)) > 5
    assert len(noise) == 64 * 3  # the first noise and two random steps of each image, never two different ones
    for out in (sevens, two, killed):
        others, same_labels, same_noise = drawn(out)
        assert same_labels == labels and same_noise == noise
        assert np.abs(others.astype(int) - images).max() <= 1
        assert np.array_equal(others, drawn(sevens)[0])
        manifests = [json.loads((each / "manifest.json").read_text()) for each in (out, whole)]
        assert manifests[0]["identity"] == manifests[1]["identity"]
        left = sorted(path.name for path in out.iterdir())
        assert left == ["environment.json", "grid.png", "manifest.json", "samples.npz"]
