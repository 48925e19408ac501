"""Locks between processes: one at a time, none left behind by a kill."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from repae.config import Busy, locked


def test_only_one_is_inside(tmp_path: Path) -> None:
    """Protects what is locked, also from this process; a lock that was given back is free, and its file is gone."""
    path = tmp_path / "below" / "lock"
    with locked(path):
        began = time.monotonic()
        with pytest.raises(Busy), locked(path, seconds=0.1):
            pass
        assert time.monotonic() - began >= 0.1
    assert not path.exists()
    with locked(path, seconds=0.0), pytest.raises(RuntimeError), locked(tmp_path / "other"):
        raise RuntimeError
    assert not any(entry.is_file() for entry in tmp_path.rglob("*"))


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    """Protects whoever comes after a SIGKILL, and waits for a lock whose file is removed meanwhile."""
    path, ready = tmp_path / "lock", tmp_path / "ready"
    child = os.fork()
    if child == 0:
        try:
            with locked(path):
                ready.touch()
                time.sleep(60)
        finally:
            os._exit(1)
    while not ready.exists():
        time.sleep(0.001)
    with pytest.raises(Busy), locked(path, seconds=0.0):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with locked(path, seconds=5.0):
        assert path.exists()


def test_many_take_turns(tmp_path: Path) -> None:
    """Protects against two inside at once when the file goes and comes: a counter in a file misses no step."""
    path, counter = tmp_path / "lock", tmp_path / "counter"
    counter.write_text("0")
    children = []
    for _ in range(4):
        child = os.fork()
        if child == 0:
            try:
                for _ in range(25):
                    with locked(path):
                        counter.write_text(str(int(counter.read_text()) + 1))
                os._exit(0)
            finally:
                os._exit(1)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert counter.read_text() == "100"
