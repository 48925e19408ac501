from __future__ import annotations

import json
import math

import pytest
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.config import UserError
from repae.track import JsonlTracker, read_metrics


def _without_wall(path):
    return [{k: v for k, v in record.items() if k != "wall"} for record in read_metrics(path)]


def test_a_row_is_one_line_on_the_disk_at_once(tmp_path):
    """A kill after `log` loses nothing: the line is there before the tracker is closed."""
    tracker = JsonlTracker(tmp_path / "run" / "metrics.jsonl")
    tracker.log(10, {"sit_loss": 0.1, "epoch": 0}, {"time": 1.0, "images_per_second": 300.0})
    assert (tmp_path / "run" / "metrics.jsonl").read_text().endswith("}\n")
    assert read_metrics(tracker.path) == [
        {"step": 10, "sit_loss": 0.1, "epoch": 0.0, "wall": {"time": 1.0, "images_per_second": 300.0}}
    ]


def test_numbers_survive_exactly(tmp_path):
    """Metrics are compared bit for bit after a resume: no rounding on the way."""
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    values = {"a": 0.1 + 0.2, "b": 1e-300, "c": -1 / 3}
    tracker.log(1, values)
    assert read_metrics(tracker.path) == [{"step": 1, **values}]


def test_what_is_not_finite_stays_valid_json(tmp_path):
    """Any JSON reader can read the file; ours gives NaN back."""
    tracker = JsonlTracker(tmp_path / "m.jsonl")
    tracker.log(1, {"a": math.inf, "b": math.nan, "c": 1.0})
    json.loads(tracker.path.read_text(), parse_constant=pytest.fail)
    record = read_metrics(tracker.path)[0]
    assert math.isnan(record["a"]) and math.isnan(record["b"]) and record["c"] == 1.0


@given(st.integers(0, 12), st.integers(0, 60))
def test_resume_equals_never_killed(tmp_path_factory, checkpoint, cut):
    """Killed at any byte, truncated to a checkpoint and continued: each step once, the file of an undisturbed run."""
    folder = tmp_path_factory.mktemp("resume")
    whole, killed = JsonlTracker(folder / "whole.jsonl"), JsonlTracker(folder / "killed.jsonl")
    for step in range(1, 13):
        whole.log(step, {"loss": 1 / step})
    for step in range(1, 13):
        killed.log(step, {"loss": 1 / step})
    data = killed.path.read_bytes()
    position = max(len(data) - cut, 0)
    killed.path.write_bytes(data[:position])
    complete = data[:position].count(b"\n")
    checkpoint = min(checkpoint, complete)
    killed.resume(checkpoint)
    for step in range(checkpoint + 1, 13):
        killed.log(step, {"loss": 1 / step})
    assert killed.path.read_bytes() == whole.path.read_bytes()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_reading_leaves_a_half_written_line_out(tmp_path):
    """A report of a run that has just died is still made."""
    path = tmp_path / "m.jsonl"
    path.write_text('{"step": 1, "a": 2.0}\n{"step": 2, "a": 1.')
    assert _without_wall(path) == [{"step": 1, "a": 2.0}]


def test_errors_are_said_in_words(tmp_path):
    """A missing file and a foreign line are named; nothing is dropped in silence from the middle of a file."""
    with refused(UserError, tmp_path / "none.jsonl", "No such file", "metrics.jsonl"):
        read_metrics(tmp_path / "none.jsonl")
    path = tmp_path / "m.jsonl"
    path.write_text('garbage\n{"step": 1}\n')
    with refused(UserError, path, "line 1", "garbage", "remove the line"):
        read_metrics(path)


def test_resume_without_a_file_is_nothing(tmp_path):
    """The first start of a run resumes from nothing."""
    JsonlTracker(tmp_path / "m.jsonl").resume(5)
    assert not (tmp_path / "m.jsonl").exists()
