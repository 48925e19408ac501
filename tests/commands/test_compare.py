from __future__ import annotations

import json

import pytest
from errors import refused

from repae.commands.compare import compare_runs, figures_table
from repae.config import UserError

PROTOCOL = {"bundle": "ema", "images": 1000, "sampler": {"kind": "euler", "steps": 50}, "recipe": "a", "step": 5}
RESULT = {
    "fd_teacher": 2.5, "precision_teacher": 0.5, "psnr": 30.0, "fd_floor": 1.0, "odd": 3, "classes": {},
    "intervals": {"fd_teacher": [2.0, 3.0]}, "deviations": {}, "warnings": {"fd_teacher": "90 images; too few"},
    "notes": ["No FID: no weights."], "protocol": PROTOCOL,
}  # fmt: skip


@pytest.fixture
def runs(tmp_path):
    def write(name, protocol=None, **figures):
        (tmp_path / name).mkdir()
        result = {**RESULT, **figures, "protocol": {**PROTOCOL, **(protocol or {})}}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(result))
        return tmp_path / name

    return write


def test_warnings_stand_in_the_table():
    """Beside the figure they belong to, with its interval; notes come below, tables of tables do not."""
    lines = figures_table(RESULT).splitlines()
    (line,) = (line for line in lines if line.startswith("fd_teacher"))
    assert "2 to 3" in line and "90 images; too few" in line
    assert lines[-1] == "No FID: no weights." and not any("classes" in line for line in lines)


def test_one_protocol_is_comparable(runs):
    """The best value of each figure has a star, lower or higher; figures without a better have none; recipe and step
    may differ."""
    a, b = runs("a"), runs("b", {"recipe": "b", "step": 9}, fd_teacher=1.5, precision_teacher=0.4, odd=4)
    out = str(compare_runs(a, b))
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line}
    assert lines["fd_teacher"] == ["2.5!", "1.5*!"] and lines["precision_teacher"] == ["0.5*", "0.4"]
    assert lines["odd"] == ["3", "4"] and lines["fd_floor"] == ["1", "1"]
    assert "Comparable: one protocol" in out and "NOT" not in out


def test_other_samplers_are_not_comparable(runs):
    """The field is named with both values; those of the autoencoder keep their star."""
    a, b = runs("a"), runs("b", {"sampler": {"kind": "euler", "steps": 250}}, fd_teacher=1.5, psnr=31.0)
    out = str(compare_runs(a, b))
    assert "NOT COMPARABLE: protocols of generated images differ" in out
    assert "sampler.steps: 50 | 250" in out and "1.5*" not in out and "31*" in out


def test_other_weights_make_nothing_comparable(runs):
    """EMA weights of one run against the live ones of another."""
    out = str(compare_runs(runs("a"), runs("b", {"bundle": "live"}, psnr=31.0)))
    assert "NOT COMPARABLE: the protocols differ" in out and "bundle: 'ema' | 'live'" in out and "31*" not in out


def test_versions_are_a_remark(runs):
    """Another patch release is said and refuses nothing."""
    out = str(compare_runs(runs("a", {"versions": {"torch": "2.11"}}), runs("b", {"versions": {"torch": "2.12"}})))
    assert "Comparable" in out and "versions.torch: '2.11' | '2.12'" in out


def test_a_third_run_is_held_against_the_first(runs):
    """One run that differs takes the stars from all; a figure that only some have is a dash elsewhere."""
    out = str(compare_runs(runs("a"), runs("b", kd_teacher=0.1), runs("c", {"images": 500})))
    assert "a | c, what differs:" in out and "a | b" not in out and "*" not in out.partition("NOT")[0]
    assert next(line for line in out.splitlines() if line.startswith("kd_teacher")).split() == [
        "kd_teacher",
        "-",
        "0.1",
        "-",
    ]


def test_what_cannot_be_compared_is_refused(runs, tmp_path):
    """One run alone, a run without an evaluation, figures without a protocol."""
    a = runs("a")
    with refused(UserError, "at least two", "`repae compare RUN RUN ...`"):
        compare_runs(a)
    (tmp_path / "bare").mkdir()
    with refused(UserError, "no evaluation", f"`repae evaluate {tmp_path / 'bare'}`"):
        compare_runs(a, tmp_path / "bare")
    (tmp_path / "old.json").write_text('{"fd": 1}')
    with refused(UserError, tmp_path / "old.json", "protocol", "`repae evaluate`"):
        compare_runs(a, tmp_path / "old.json")
