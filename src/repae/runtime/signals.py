"""Being asked to stop, and stopping where nothing is lost."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

from repae.runtime.distributed import world

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupt:
    """Within this context SIGTERM and the first Ctrl-C only set `requested`; the second Ctrl-C aborts.

    Handlers are as before afterwards. Outside the main thread, where handlers cannot be set, it does nothing.

    Launchers repeat a Ctrl-C to processes that the terminal has told already, so among several processes a second one
    counts from one second after the first on.

    Attributes:
        requested: whether somebody asked to stop.
        reason: the name of the signal, "SIGTERM" or "SIGINT"; empty before.
    """

    def __init__(self) -> None:
        self.requested = False
        self.reason = ""
        self._interrupted_at: float | None = None
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, previous in self._previous.items():
            # None: a handler that Python did not set and cannot set again.
            signal.signal(number, signal.SIG_DFL if previous is None else previous)  # type: ignore[arg-type]
        self._previous = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            now = time.monotonic()
            repeat = 1.0 if world().size > 1 else 0.0
            if self._interrupted_at is not None and now - self._interrupted_at >= repeat:
                raise KeyboardInterrupt
            if self._interrupted_at is None:
                self._interrupted_at = now
        self.requested = True
        self.reason = self.reason or signal.Signals(number).name
