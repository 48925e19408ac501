"""Locks between the processes of one machine: filelock's, with a file that does not stay behind."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""How a file system refuses that has no locks: some network and cluster ones, as they are mounted."""


class Busy(Exception):  # noqa: N818 (not an error: who asks decides)
    """Another process holds the lock."""


@contextmanager
def locked(path: Path, seconds: float | None = None) -> Iterator[None]:
    """Within the context no other process of this machine is inside for the same file, which is removed at the end.

    The lock ends with the process, however it ends; processes forked inside the context do not hold it. Where the file
    system has no locks, nothing is locked.

    Args:
        path: the lock's file; missing parent folders are made.
        seconds: how long to wait for it; None waits as long as it takes.

    Raises:
        Busy: another process held it all that time.
    """
    from filelock import FileLock, Timeout  # a tenth of a second, which help would wait for too

    path.parent.mkdir(parents=True, exist_ok=True)
    # Its other way out of a missing lock is a file that a killed process leaves behind.
    lock = FileLock(path, timeout=-1 if seconds is None else seconds, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise Busy from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
    try:
        yield
    finally:
        # While it is held: who waits for the removed file finds that out, and tries again.
        path.unlink(missing_ok=True)
        lock.release()
