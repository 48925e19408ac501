"""Shards by several processes: every shard once, progress while they work, and nobody left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from errors import refused

from repae.preparation import worker_pool
from repae.preparation.worker_pool import make_all


class Slow:
    """Shards of ten images, a file for each image, whose name says which process made it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, number: int, count: Callable[[], None]) -> None:
        for image in range(10):
            time.sleep(0.01)
            (self.folder / f"{number}-{image}-{os.getpid()}").touch()
            count()


@pytest.mark.parametrize("workers", [1, 3])
def test_each_shard_is_made_once_and_progress_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """Protects the bar, which stands still for no shard, and the shards, none of which is made twice."""
    monkeypatch.setattr(worker_pool, "POLL_SECONDS", 0.025)  # within a shard, whatever the machine does beside it
    told: list[int] = []
    make_all(Slow(tmp_path), [7, 3, 5, 1, 0, 9], workers, told.append)
    made = [path.name.rpartition("-") for path in tmp_path.iterdir()]
    assert sorted(name for name, _, _ in made) == sorted(f"{n}-{i}" for n in (7, 3, 5, 1, 0, 9) for i in range(10))
    assert told == sorted(told) and told[-1] == 60 and len({count % 10 for count in told}) > 1
    assert len({process for *_, process in made}) == workers


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    """Protects the folder and the machine: a killed command leaves no process that writes on or waits."""
    child = os.fork()
    if child == 0:
        make_all(Slow(tmp_path), range(1000), 2, lambda _: None)
        os._exit(0)
    while len(workers := {int(path.name.rpartition("-")[2]) for path in tmp_path.iterdir()}) < 2:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    deadline = time.monotonic() + 10
    while alive := [worker for worker in workers if is_running(worker)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.01)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_the_first_failure_stops_all(tmp_path: Path) -> None:
    """Protects time: after a failure nothing more is begun, and the error arrives as it was raised."""

    def fail(number: int, count: Callable[[], None]) -> None:
        if number == 1:
            raise OSError(28, "full")
        Slow(tmp_path)(number, count)

    with refused(OSError, "[Errno 28] full") as error:
        make_all(fail, range(100), 2, lambda _: None)
    assert error.value.errno == 28 and len(list(tmp_path.iterdir())) < 50
