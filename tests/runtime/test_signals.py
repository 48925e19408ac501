"""Being asked to stop."""

import os
import signal
import threading

import pytest

from repae.runtime.distributed import World
from repae.runtime.signals import Interrupt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_only_sets_the_flag(number):
    """The step in progress ends as it would have; handlers are as before afterwards."""
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)]
    with Interrupt() as interrupt:
        assert not interrupt.requested and interrupt.reason == ""
        os.kill(os.getpid(), number)
        assert interrupt.requested and interrupt.reason == number.name
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.reason == number.name
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_second_ctrl_c_aborts():
    """Whoever cannot wait for the checkpoint; handlers are restored on that way out too."""
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), Interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_a_launchers_echo_of_ctrl_c_is_not_a_second_one(monkeypatch):
    """The terminal tells every process of the group, and torchrun tells its workers once more."""
    now = [100.0]
    monkeypatch.setattr("repae.runtime.signals.world", lambda: World(0, 2, 0))
    monkeypatch.setattr("repae.runtime.signals.time.monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        for later in (0.0, 0.1, 0.9):
            now[0] = 100.0 + later
            os.kill(os.getpid(), signal.SIGINT)
        assert interrupt.requested
        now[0] = 101.0
        os.kill(os.getpid(), signal.SIGINT)


def test_outside_the_main_thread_it_does_nothing():
    """Handlers cannot be set there, and a notebook's thread must still be able to train."""
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def train():
        with Interrupt() as interrupt:
            seen.append((interrupt.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
