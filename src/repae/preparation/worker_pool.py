"""Shards made by several processes of one machine, which share nothing but the number of the next one."""

from __future__ import annotations

import ctypes
import multiprocessing as mp
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback  # pyright: ignore[reportAttributeAccessIssue]
from typing import Any

import torch

from repae.config import UserError

POLL_SECONDS = 0.1

PATIENCE = 60.0
"""Seconds that a worker which is to stop has for its last image."""

Make = Callable[[int, Callable[[], None]], None]
"""Makes the shard of a number; calls what it is given once for every image, and may be stopped there."""


class Stopped(BaseException):
    """The pool is to stop; a shard that is being written is given up."""


def make_all(make: Make, numbers: Sequence[int], workers: int, report: Callable[[int], None]) -> None:
    """Makes all shards, in order with one worker, each once with several; the first failure stops all of them.

    Args:
        make: what makes one; where processes are not forked, it must be picklable.
        numbers: of the shards.
        workers: processes; 1 works in this one.
        report: called a few times a second with the number of images done so far.

    Raises:
        OSError: as a worker met it, such as a full disk.
        UserError: as a worker said it, or because a worker was killed.
    """
    workers = min(workers, len(numbers))
    if workers <= 1:
        _alone(make, numbers, report)
    else:
        _Pool(make, numbers, workers).run(report)


def _alone(make: Make, numbers: Sequence[int], report: Callable[[int], None]) -> None:
    done, told = 0, time.monotonic()

    def count() -> None:
        nonlocal done, told
        done += 1
        if (now := time.monotonic()) - told >= POLL_SECONDS:
            told = now
            report(done)

    for number in numbers:
        make(number, count)
    report(done)


class _Pool:
    """Worker processes. Each takes the next number, makes that shard, and ends when none is left."""

    def __init__(self, make: Make, numbers: Sequence[int], workers: int) -> None:
        # Forked where that is safe: at once ready, and what was listed is shared instead of copied.
        forked = "fork" in mp.get_all_start_methods() and os.uname().sysname == "Linux"
        context: Any = mp.get_context("fork" if forked else "spawn")
        self.next: Any = context.Value(ctypes.c_int64, 0)
        self.stop: Any = context.RawValue(ctypes.c_bool, False)
        self.done: Any = context.RawArray(ctypes.c_int64, workers)
        pipes = [context.Pipe(duplex=False) for _ in range(workers)]
        self.inboxes: list[Connection] = [receiving for receiving, _ in pipes]
        self.processes = [
            context.Process(
                target=_work,
                args=(make, list(numbers), worker, self.next, self.stop, self.done, sending, os.getpid()),
                daemon=True,
            )
            for worker, (_, sending) in enumerate(pipes)
        ]

    def run(self, report: Callable[[int], None]) -> None:
        for process in self.processes:
            process.start()
        try:
            reported = -1
            while reported < 0 or any(process.is_alive() for process in self.processes):
                self._raise_failure()
                if (done := sum(self.done)) != reported:
                    report(done)
                    reported = done
                wait([process.sentinel for process in self.processes], POLL_SECONDS)
            self._raise_failure()
            if sum(self.done) != reported:
                report(sum(self.done))
        finally:
            self.stop.value = True
            for process in self.processes:
                process.join(PATIENCE)
                process.kill()

    def _raise_failure(self) -> None:
        for process, inbox in zip(self.processes, self.inboxes, strict=True):
            if inbox.poll():
                with suppress(EOFError):
                    raise inbox.recv()
            if process.exitcode:
                raise UserError(
                    f"a worker was killed ({_status(process.exitcode)}), perhaps for want of memory; run the same "
                    "command again with fewer --workers: it goes on where it stopped"
                )


def _work(
    make: Make, numbers: list[int], worker: int, following: Any, stop: Any, done: Any, outbox: Connection, parent: int
) -> None:
    """What a worker does. Ctrl-C reaches the whole group: the parent decides, and its end ends the worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

    def count() -> None:
        done[worker] += 1
        if stop.value or os.getppid() != parent:
            raise Stopped

    try:
        while True:
            with following.get_lock():
                place = following.value
                following.value += 1
            if place >= len(numbers):
                break
            make(numbers[place], count)
    except Stopped:
        pass
    except Exception as error:
        outbox.send(ExceptionWithTraceback(error, error.__traceback__))


def _status(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"status {code}"
