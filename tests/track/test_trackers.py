from __future__ import annotations

import io
import re
import sys

import numpy as np
import pytest
from errors import refused
from rich.console import Console

from repae.config import UserError
from repae.track import ProgressBar, TensorBoardTracker, Tracker, WandbTracker, duration

ROW = {"denoising_loss": 0.5, "proj_loss": -0.25, "d_loss": 0.0, "kl_loss": 3.0, "epoch": 1.0}
WALL = {"time": 1.7e9, "seconds": 10.0, "images_per_second": 320.0}
PICTURE = np.zeros((8, 8, 1), dtype=np.uint8)


def _events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_tensorboard_holds_what_was_logged(tmp_path):
    """Scalars under their own names, clock figures apart, pictures beside."""
    tracker = TensorBoardTracker(tmp_path)
    tracker.log(5, ROW, WALL)
    tracker.image(5, "samples", PICTURE)
    tracker.close()
    events = _events(tmp_path)
    assert events.Scalars("denoising_loss")[0].value == 0.5
    assert events.Scalars("denoising_loss")[0].step == 5
    assert events.Scalars("wall/images_per_second")[0].value == 320.0
    assert "wall/time" not in events.Tags()["scalars"]
    assert events.Tags()["images"] == ["samples"]


def test_tensorboard_shows_each_step_once_after_a_resume(tmp_path):
    """Steps after the checkpoint are purged, as they are from the JSON lines."""
    first = TensorBoardTracker(tmp_path)
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    first.close()
    second = TensorBoardTracker(tmp_path)
    second.resume(1)
    for step in (2, 3):
        second.log(step, {"loss": 10.0 * step})
    second.close()
    assert [(event.step, event.value) for event in _events(tmp_path).Scalars("loss")] == [
        (1, 1.0),
        (2, 20.0),
        (3, 30.0),
    ]


def test_wandb_missing_names_the_extra(tmp_path, monkeypatch):
    """A user who asks for wandb without having it learns what to type."""
    monkeypatch.setitem(sys.modules, "wandb", None)
    with refused(UserError, "wandb", "pip install 'repae[wandb]'"):
        WandbTracker(tmp_path)


@pytest.mark.slow
def test_wandb_works_offline_and_keeps_its_identity(tmp_path, monkeypatch):
    """Without network and account a run is written to the disk; a second process continues the same one."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    identities = []
    for _ in range(2):
        tracker = WandbTracker(tmp_path, name="test", config={"seed": 0}, offline=True)
        tracker.resume(3)
        tracker.log(4, ROW, WALL)
        tracker.image(4, "samples", PICTURE)
        identities.append(tracker.run.id)
        tracker.close()
    assert identities[0] == identities[1]
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert files and all(file.stat().st_size for file in files)


def _plain(total, every):
    out = io.StringIO()
    return ProgressBar(total, console=Console(file=out, soft_wrap=True, width=80), every=every), out


def test_plain_lines_say_what_matters():
    """A log file shows speed, losses and the time left, one line each, without control characters."""
    bar, out = _plain(100, every=0.0)
    bar.log(20, ROW, WALL)
    assert out.getvalue() == "train 20/100  320 images/s  denoise 0.5  align -0.25  40 s left\n"


def test_plain_lines_are_rare_and_end_with_the_last_step():
    """Redirected output does not grow by a line per logging interval; the end is always told."""
    bar, out = _plain(100, every=3600.0)
    for step in range(1, 101):
        bar.log(step, ROW, WALL)
    assert re.findall(r"train (\d+)/100", out.getvalue()) == ["1", "100"]


def test_time_left_counts_from_where_the_run_was_resumed():
    """Steps of an earlier process cost this one nothing."""
    bar, out = _plain(100, every=0.0)
    bar.resume(80)
    bar.log(90, ROW, WALL)
    assert out.getvalue().endswith("10 s left\n")


def test_unknown_losses_are_shown_under_their_own_names():
    """The teacher's and the VAE's training have other losses; their bar is not empty."""
    bar, out = _plain(10, every=0.0)
    bar.log(1, {"epoch": 0.0, "variance_loss": 2.0})
    assert "variance_loss 2" in out.getvalue() and "epoch" not in out.getvalue()


def test_terminal_gets_a_bar():
    """On a terminal one bar is redrawn instead of lines."""
    out = io.StringIO()
    bar = ProgressBar(10, console=Console(file=out, force_terminal=True, width=120))
    bar.resume(2)
    bar.log(5, ROW, WALL)
    bar.log(10, ROW, WALL)
    bar.close()
    assert "10/10" in out.getvalue() and "320 images/s" in out.getvalue()


def test_a_tracker_needs_only_log():
    """Pictures, resuming and closing are optional: one method makes a tracker."""

    class Count(Tracker):
        def __init__(self):
            self.rows = 0

        def log(self, step, row, wall=None):
            self.rows += 1

    tracker = Count()
    tracker.log(1, {})
    tracker.image(1, "x", PICTURE)
    tracker.resume(1)
    tracker.close()
    assert tracker.rows == 1


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185.0, "3 min 05 s"), (7805.0, "2 h 10 min")]
)
def test_durations_read_naturally(seconds, words):
    """ETA in the units a person thinks in."""
    assert duration(seconds) == words
