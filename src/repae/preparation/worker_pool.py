"""Shards made by several processes of one machine."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import numpy as np
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

    One worker is this process itself; where others are not forked, ``make`` must be picklable. ``report`` is called a
    few times a second with the number of images done so far.

    Raises:
        OSError: as a worker met it, such as a full disk.
        UserError: as a worker said it, or because a worker was killed.
    """
    workers = min(workers, len(numbers))
    if workers <= 1:
        _alone(make, numbers, report)
    else:
        _together(make, numbers, workers, report)


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


def _together(make: Make, numbers: Sequence[int], workers: int, report: Callable[[int], None]) -> None:
    # Forked where that is safe: at once ready, and what was listed is shared instead of copied.
    context: Any = mp.get_context("fork" if sys.platform == "linux" else "spawn")
    # Without locks, which a killed worker would keep: each count, one for a shard, is written by one process.
    stop, counts = context.Value("b", 0, lock=False), context.Array("q", len(numbers), lock=False)
    done, told = np.frombuffer(counts, np.int64), time.monotonic()
    jobs = enumerate(numbers)
    with ProcessPoolExecutor(workers, context, _begin, (make, stop, counts)) as pool:
        wait([pool.submit(os.getpid) for _ in range(workers)])
        started = mp.active_children()
        running: set[Future[None]] = set()
        try:
            # A few at a time: of a billion images the futures of all shards would fill the memory.
            running |= {pool.submit(_work, *job) for job in islice(jobs, 2 * workers)}
            while running:
                ended, running = wait(running, POLL_SECONDS, FIRST_COMPLETED)
                for future in ended:
                    future.result()
                running |= {pool.submit(_work, *job) for job in islice(jobs, len(ended))}
                if (now := time.monotonic()) - told >= POLL_SECONDS:
                    told = now
                    report(int(done.sum()))
        except BrokenProcessPool:
            pool.shutdown()
            raise UserError(
                f"a worker was killed ({_cause(started)}), perhaps for want of memory; run the same command again "
                "with fewer --workers: it goes on where it stopped"
            ) from None
        except BaseException:
            stop.value = True
            if wait(running, PATIENCE).not_done:
                for process in started:
                    process.kill()
            raise
    report(int(done.sum()))


def _cause(processes: Sequence[BaseProcess]) -> str:
    # What ended the first of them: the others got SIGTERM for it.
    codes = [process.exitcode for process in processes if process.exitcode not in (0, None)]
    code = next((code for code in codes if code != -signal.SIGTERM), -signal.SIGTERM)
    return signal.Signals(-code).name if code < 0 else f"status {code}"


class _Worker(NamedTuple):
    make: Make
    stop: Any
    counts: Any


_worker: _Worker
"""What this process does, if it is a worker."""


def _begin(make: Make, stop: Any, counts: Any) -> None:
    global _worker
    _worker = _Worker(make, stop, counts)
    torch.set_num_threads(1)
    # Ctrl-C reaches the whole group: the parent decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A worker whose parent was killed would write beside the next command, then wait for work for ever.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = mp.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(place: int, number: int) -> None:
    def count() -> None:
        _worker.counts[place] += 1
        if _worker.stop.value:
            raise Stopped

    if not _worker.stop.value:
        _worker.make(number, count)
