"""A process beside this one that writes while this one computes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from repae.config import UserError

AHEAD = 2
"""Calls that may wait for the process beside before this one waits for it: what is held in memory meanwhile."""

Submit = Callable[..., None]
"""`submit(function, *arguments)`: to be called later, in order."""


@contextmanager
def beside() -> Iterator[Submit]:
    """Calls that are submitted within the context run one after another in a new process.

    The context ends when all of them have. Function and arguments travel as pickles. The process ends with this one,
    whatever ends this one.

    Raises:
        UserError: the process died.
        Exception: what a call raised, at the next submission or at the end.
    """
    waiting: deque[Future[Any]] = deque()
    # Not by fork: a copy of a process with threads and a GPU may hang.
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_end_with_parent)

    def submit(function: Callable[..., Any], *arguments: Any) -> None:
        waiting.append(pool.submit(function, *arguments))
        while len(waiting) > AHEAD or (waiting and waiting[0].done()):
            waiting.popleft().result()

    try:
        yield submit
        while waiting:
            waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "the process that writes beside this one was ended, perhaps for want of memory; what it had written is "
            "whole: run the same command again to go on"
        ) from error
    finally:
        pool.shutdown()


@contextmanager
def at_once() -> Iterator[Submit]:
    """The same for calls that nothing runs beside: they run here, when they are submitted."""

    def submit(function: Callable[..., Any], *arguments: Any) -> None:
        function(*arguments)

    yield submit


def _end_with_parent() -> None:
    """Ctrl-C is for the parent to answer, and a parent that was killed cannot say goodbye."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
