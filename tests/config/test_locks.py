"""Locks between processes: one at a time, none left behind by a kill."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from errors import refused

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


def test_a_forked_child_neither_holds_nor_ends_it(tmp_path: Path) -> None:
    """Protects a part that workers are forked for: their ends leave the lock alone, and none outlives its parent's."""
    path = tmp_path / "lock"
    with locked(path):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(Busy), locked(path, seconds=0.0):
            pass
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(1)
    try:
        with locked(path, seconds=0.0):
            assert path.exists()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects runs on network folders that are mounted so; what else the system refuses is an error."""
    import fcntl

    def refuse(number: int) -> Callable[..., None]:
        def flock(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return flock

    for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        monkeypatch.setattr(fcntl, "flock", refuse(number))
        with locked(tmp_path / "lock"), locked(tmp_path / "lock"):
            pass
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EIO))
    with refused(OSError, "Input/output error"), locked(tmp_path / "lock"):
        pass
