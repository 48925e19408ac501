"""Locks between the processes of one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

POLL_SECONDS = 0.05


class Busy(Exception):  # noqa: N818 (not an error: who asks decides)
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, seconds: float | None = None) -> Iterator[None]:
    """Within the context no other process of this machine is inside for the same file, which is removed at the end.

    The lock ends with the process, however it ends. Processes forked inside the context hold it too, until the last of
    them has ended. Where the system has no such locks, nothing is locked.

    Args:
        path: the lock's file; missing parent folders are made.
        seconds: how long to wait for it; None waits as long as it takes.

    Raises:
        Busy: another process held it all that time.
    """
    file = _acquire(path, None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def _acquire(path: Path, deadline: float | None) -> BinaryIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = path.open("ab")
        except FileNotFoundError:  # somebody removed the folder in between
            continue
        try:
            _wait(file, deadline)
            # Whoever held it may have removed the file that was waited for.
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def _wait(file: BinaryIO, deadline: float | None) -> None:
    try:
        import fcntl
    except ImportError:
        return
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if deadline is None else fcntl.LOCK_NB))
            return
        except BlockingIOError:
            if deadline is not None and time.monotonic() > deadline:
                raise Busy from None
            time.sleep(POLL_SECONDS)
        except OSError:  # a file system without locks
            return
