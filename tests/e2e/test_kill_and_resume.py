"""Runs that are killed go on as if nothing had happened: a real process, SIGKILL, the same command again."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from warm import Child, Warm

from repae.runtime.checkpoint import CheckpointStore

pytestmark = pytest.mark.slow

Start = Callable[..., Child]

STEPS = 20
SMALL = {
    "loop.steps": STEPS,
    "loop.batch_size": 8,
    "loop.log_every": 3,
    "loop.checkpoint_every": 2,
    "teachers.0.steps": 2,
    "teachers.0.batch_size": 16,
    "start.steps": 2,
    "start.batch_size": 8,
    "backbone.hidden_size": 32,
    "backbone.depth": 2,
    "backbone.num_heads": 2,
    "backbone.projector_dim": 16,
    "backbone.encoder_depth": 1,
    "discriminator.ndf": 8,
    "losses.lecam_regularization_weight": 0.1,
    "preview.every": 1000,
    "preview.sampler.steps": 2,
    "preview.per_class": 1,
    "runtime.threads": 1,
    "runtime.device": "cpu",
    "track.progress": "false",
    "track.tensorboard": "false",
}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Where the processes come from: a killed run is one of its own, but shares the imports."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = Warm(tmp_path_factory.mktemp("said"), environment)
    yield process
    process.close()


@pytest.fixture(scope="module")
def start(warm: Warm) -> Start:
    """``repae train digits-full`` in a process of its own; ``code`` runs inside it beforehand."""

    def begin(runs: Path, name: str, code: str = "", **changes: Any) -> Child:
        fields = {**SMALL, "name": name, **changes}
        words = [word for field, value in fields.items() for word in (f"--{field}", str(value))]
        return warm.start(code, ["train", "digits-full", *words, "--runs", str(runs)])

    return begin


def finish(process: Child, status: int = 0) -> str:
    _, words = process.communicate(timeout=240)
    assert process.returncode == status, words
    return words


def rows(folder: Path) -> list[dict[str, Any]]:
    """The metrics of a run, the clock's fields left out."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "wall"} for line in lines]


def weights(folder: Path) -> dict[str, bytes]:
    """Every file of tensors of the last checkpoint, byte for byte."""
    newest = CheckpointStore(folder / "checkpoints").latest()
    assert newest is not None and newest.name == f"step-{STEPS:07d}"
    return {path.name: path.read_bytes() for path in sorted(newest.glob("*.safetensors"))}


def wait_for(condition: Callable[[], bool], process: Child) -> None:
    deadline = time.monotonic() + 200
    while not condition():
        assert process.poll() is None, process.communicate(1)[1]
        assert time.monotonic() < deadline, "the run did not get so far"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed; its teacher and autoencoder are shared by the others."""
    runs = tmp_path_factory.mktemp("runs")
    finish(start(runs, "whole"))
    return runs


DIE_AT = """
import os, signal
from repae.training import loop
original = loop.Loop._train
def dying(self, batches, done):
    if done == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, batches, done)
loop.Loop._train = dying
"""

DIE_WRITING = """
import os, signal
from repae.runtime import checkpoint
original, count = checkpoint.save_file, [0]
def dying(tensors, file):
    count[0] += 1
    original(tensors, file)
    if "step-0000008" in str(file) and count[0] % 4 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = dying
"""


@pytest.mark.parametrize(
    "deaths",
    [[DIE_AT.format(step=7)], [DIE_AT.format(step=1), DIE_AT.format(step=13)], [DIE_WRITING]],
    ids=["after seven steps", "before the first checkpoint and again later", "while a checkpoint is written"],
)
def test_a_killed_run_ends_bit_for_bit_as_an_undisturbed_one(
    start: Start, undisturbed: Path, deaths: list[str], request: Any
) -> None:
    """Weights, averages, moments, LeCam's means and every line of the metrics: nothing may know of the kill."""
    name = f"killed-{abs(hash(request.node.callspec.id)) % 10_000}"
    for code in deaths:
        process = start(undisturbed, name, code)
        process.communicate(timeout=240)
        assert process.returncode == -signal.SIGKILL
    finish(start(undisturbed, name))
    assert rows(undisturbed / name) == rows(undisturbed / "whole")
    assert [row["step"] for row in rows(undisturbed / name)] == [3, 6, 9, 12, 15, 18, 20]
    expected = weights(undisturbed / "whole")
    assert weights(undisturbed / name) == expected and len(expected) >= 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_writes_a_checkpoint_and_says_how_to_go_on(
    start: Start, undisturbed: Path, number: signal.Signals
) -> None:
    """SIGTERM and Ctrl-C lose nothing, print one line and no traceback; the same command ends as if undisturbed."""
    name = f"asked-{number.name.lower()}"
    slow = "import time\nfrom repae.training import loop\noriginal = loop.Loop._train\n"
    slow += "def slowly(self, batches, done):\n    time.sleep(0.1)\n    original(self, batches, done)\n"
    process = start(undisturbed, name, slow + "loop.Loop._train = slowly")
    wait_for(lambda: (undisturbed / name / "checkpoints" / "step-0000004").is_dir(), process)
    process.send_signal(number)
    words = finish(process, status=130)
    assert "Traceback" not in words and "goes on" in words
    newest = CheckpointStore(undisturbed / name / "checkpoints").latest()
    assert newest is not None and 4 <= int(newest.name.removeprefix("step-")) < STEPS
    finish(start(undisturbed, name))
    assert rows(undisturbed / name) == rows(undisturbed / "whole")
    assert weights(undisturbed / name) == weights(undisturbed / "whole")


def test_what_changes_no_weight_may_change_and_all_else_is_refused_by_name(start: Start, undisturbed: Path) -> None:
    """A folder belongs to one recipe; logging, threads and the like are free."""
    refused = start(undisturbed, "whole", **{"loop.batch_size": 16})
    _, words = refused.communicate(timeout=120)
    assert refused.returncode == 2 and "loop.batch_size was 8, is now 16" in words and "Traceback" not in words
    finish(start(undisturbed, "whole", **{"loop.log_every": 5, "runtime.threads": 2}))


def test_a_truncated_checkpoint_is_named_with_what_to_do(start: Start, undisturbed: Path) -> None:
    """One clear line and status 2, and the checkpoint before it still serves."""
    finish(start(undisturbed, "hurt", **{"loop.steps": 4}))
    newest = CheckpointStore(undisturbed / "hurt" / "checkpoints").latest()
    assert newest is not None
    file = newest / "denoiser.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    process = start(undisturbed, "hurt", **{"loop.steps": 4})
    _, words = process.communicate(timeout=120)
    assert process.returncode == 2 and "denoiser.safetensors" in words and "delete that folder" in words
    assert "Traceback" not in words
