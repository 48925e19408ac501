"""A background process that writes while this one computes."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from repae.config import UserError

AHEAD = 2
"""Calls that may wait for the background process before this one waits for it: what is held in memory meanwhile."""

Submit = Callable[..., None]
"""`submit(function, *arguments)`: to be called later, in order."""


@contextmanager
def background() -> Iterator[Submit]:
    """Calls that are submitted within the context run one after another in a new process.

    The context ends when all of them have. Function and arguments travel as pickles; the process imports what they
    need and nothing else, least of all the program that runs here. It ends with this one, whatever ends this one.

    Raises:
        UserError: the process died.
        Exception: what a call raised, at the next submission or at the end.
    """
    # Not a ProcessPoolExecutor: fork copies threads and a GPU's context; spawn and forkserver import the main program
    # again, with all the torch in it, and a script that does not guard its own calls would begin anew there.
    program = f"import sys; sys.path[:] = {sys.path!r}; from repae.runtime.background import serve; serve()"
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    calls, answers = process.stdin, process.stdout

    def call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            pickle.dump((function, arguments), calls, protocol=pickle.HIGHEST_PROTOCOL)
            calls.flush()
            error = pickle.load(answers)
        except (EOFError, BrokenPipeError) as lost:
            raise UserError(
                "the process that writes in the background was ended, perhaps for want of memory; what it had written "
                "is whole: run the same command again to go on"
            ) from lost
        if error is not None:
            raise error

    waiting: deque[Future[None]] = deque()

    def submit(function: Callable[..., Any], *arguments: Any) -> None:
        waiting.append(thread.submit(call, function, arguments))
        # Those that are done too: an error of theirs is heard at the next call, not at the end.
        while len(waiting) > AHEAD or (waiting and waiting[0].done()):
            waiting.popleft().result()

    try:
        with ThreadPoolExecutor(1) as thread:
            yield submit
            while waiting:
                waiting.popleft().result()
    finally:
        # The end of its input is the sign to stop; one that has died cannot hear it.
        with suppress(BrokenPipeError):
            calls.close()
        process.wait()
        answers.close()


@contextmanager
def foreground() -> Iterator[Submit]:
    """The same where there is nothing to do meanwhile: calls run here, when they are submitted."""
    yield lambda function, *arguments: function(*arguments)


def serve() -> None:
    """What the background process does: run what comes in, answer with nothing or the error, until nothing comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other one to answer
    answers = os.fdopen(os.dup(1), "wb")
    # What a call prints must not run in between the answers.
    os.dup2(2, 1)
    while True:
        try:
            function, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            function(*arguments)
            error = None
        except Exception as raised:
            error = raised
        pickle.dump(error, answers)
        answers.flush()
