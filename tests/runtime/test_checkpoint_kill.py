"""SIGKILL at every moment of writing a checkpoint, in real processes."""

import signal
import subprocess
import sys
import time

import pytest
import torch
from processes import child_environment

from repae.runtime.checkpoint import CheckpointStore

SAVE = """
import os, signal, sys, torch
from pathlib import Path
import repae.config.files as files
import repae.runtime.checkpoint as checkpoint

class Part:
    def __init__(self, step):
        self.step = step
    def state_dict(self):
        return {"x": torch.full((50_000,), float(self.step)), "step": self.step}
    def load_state_dict(self, state):
        assert state["step"] == self.step and bool((state["x"] == self.step).all())

def save(store, step, best=False):
    store.save(step, {"one": Part(step), "two": Part(step)}, {"step": step}, best=best)
"""

EVERY_MOMENT = (
    SAVE
    + """
# Each system call of a save that changes the disk is a moment to die at: before it, and where it writes, halfway.
def dying_at(moment):
    count = 0
    def die_when_due():
        nonlocal count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    def before(function):
        def wrapped(*arguments, **options):
            die_when_due()
            return function(*arguments, **options)
        return wrapped
    def halfway(tensors, file):
        die_when_due()
        whole(tensors, file)
        data = Path(file).read_bytes()
        Path(file).write_bytes(data[: len(data) // 2])
        die_when_due()
        Path(file).write_bytes(data)
    def file_by_file(folder, ignore_errors=False):
        die_when_due()
        for file in sorted(Path(folder).glob("*")):
            file.unlink()
            die_when_due()
        if not ignore_errors or Path(folder).exists():
            remove(folder, ignore_errors)
    whole, remove = checkpoint.save_file, files.shutil.rmtree
    checkpoint.save_file = halfway
    files.sync = before(files.sync)
    checkpoint.write_atomic = before(checkpoint.write_atomic)
    files.shutil.rmtree = file_by_file
    for name in ("mkdir", "rename", "replace", "write_text"):
        setattr(Path, name, before(getattr(Path, name)))

for moment in range(1, 100):
    folder = Path(sys.argv[1]) / str(moment)
    for step in (1, 2):
        save(checkpoint.CheckpointStore(folder, keep_last=2), step)
    child = os.fork()
    if child == 0:
        dying_at(moment)
        step = int(sys.argv[2])
        save(checkpoint.CheckpointStore(folder, keep_last=2), step, best={"fd": 0.5})
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    store = checkpoint.CheckpointStore(folder, keep_last=2)
    assert store.describe(store.latest()).step in (2, 3), store.latest()
    for path in folder.glob("step-*"):
        step = store.describe(path).step
        store.load(path, {"one": Part(step), "two": Part(step)})
    save(store, 4)
    store.load(store.latest(), {"one": Part(4), "two": Part(4)})
    left = sorted(path.name for path in folder.iterdir() if path.name != "best.json")
    assert len(left) in (2, 3) and left[-1] == "step-0000004" and not any("." in name for name in left), left
print(moment)
"""
)

ENDLESS = (
    SAVE
    + """
store = checkpoint.CheckpointStore(sys.argv[1])
for step in range(1, 10**6):
    save(store, step, best=step % 5 == 0)
    print(step, flush=True)
"""
)


class Part:
    """The same part, on the side of the survivor."""

    state = None

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 2])
def test_at_every_moment_a_whole_checkpoint_is_the_latest(tmp_path, step):
    """Whether a new step is written or one is replaced; the next save goes on and clears up."""
    command = [sys.executable, "-c", EVERY_MOMENT, str(tmp_path), str(step)]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15


@pytest.mark.slow
def test_killed_at_any_time_from_outside(tmp_path):
    """Whatever it had reported as saved, or the one after that, is there and whole."""
    generator = torch.Generator().manual_seed(1)
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        command = [sys.executable, "-c", ENDLESS, str(folder)]
        process = subprocess.Popen(command, env=child_environment(), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(torch.rand((), generator=generator)) / 5)
        process.send_signal(signal.SIGKILL)
        reported = [1, *(int(line) for line in process.stdout.read().split())][-1]
        process.wait()
        store, parts = CheckpointStore(folder), {"one": Part(), "two": Part()}
        latest = store.latest()
        assert latest is not None
        saved = store.load(latest, parts)
        assert saved.step in (reported, reported + 1)
        assert all(part.state is not None and bool((part.state["x"] == saved.step).all()) for part in parts.values())
