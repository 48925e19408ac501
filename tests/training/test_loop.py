"""The loop: what it logs, when it stops, where it goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from errors import refused

from repae.data.batch import Batch
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share
from repae.track import Tracker
from repae.training.loop import BestConfig, Loop, LoopConfig
from repae.training.meter import PATIENCE, Meter, NonFinite

CPU = torch.device("cpu")


class Counter:
    """A step whose loss is its number, or whatever the test puts there."""

    def __init__(self, losses: Mapping[int, float] | None = None) -> None:
        self.losses = dict(losses or {})
        self.seen: list[tuple[int, Share]] = []
        self.total = torch.zeros(())

    def __call__(self, batch: Batch, step: int, share: Share) -> dict[str, torch.Tensor]:
        self.seen.append((step, share))
        self.total += step
        return {"loss": torch.tensor(self.losses.get(step, float(step)))}

    def parts(self) -> Mapping[str, Any]:
        return {"counter": self}

    def modules(self) -> list[torch.nn.Module]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total = state["total"]


class Notes(Tracker):
    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.resumed: list[int] = []

    def log(self, step: int, row: Mapping[str, float], wall: Mapping[str, float] | None = None) -> None:
        self.rows.append((step, dict(row)))

    def resume(self, step: int) -> None:
        self.resumed.append(step)


class Every:
    def __init__(self, every: int, values: list[float]) -> None:
        self.every, self.values = every, values

    def __call__(self, step: int) -> dict[str, float]:
        return {"fd": self.values[step // self.every - 1]}


def loop(folder: Path, step: Counter, notes: Notes, precision: str = "fp32", hooks: Any = (), **fields: Any) -> Loop:
    def batches(start: int) -> Iterator[Batch]:
        while True:
            yield Batch(torch.zeros(1, 1, 4, 4, dtype=torch.uint8), torch.zeros(1).long(), torch.zeros(1).long())

    config = LoopConfig(**{"steps": 7, "batch_size": 4, "log_every": 3, "checkpoint_every": 4, "keep_last": 1} | fields)
    store = CheckpointStore(folder, config.keep_last)
    return Loop(
        step, batches, config, store, meta={}, precision=Precision(precision, CPU), device=CPU, images=8,
        trackers=[notes], hooks=hooks,
    )  # fmt: skip


def test_rows_are_means_over_their_interval_and_every_step_counts_once(tmp_path: Path) -> None:
    """A row at every third step and at the last one, whose value is the mean of its own steps."""
    notes = Notes()
    outcome = loop(tmp_path, Counter(), notes).run()
    assert outcome.finished and outcome.step == 7
    assert [(step, row["loss"]) for step, row in notes.rows] == [(3, 1.0), (6, 4.0), (7, 6.0)]
    assert [row["epoch"] for _, row in notes.rows] == [1.0, 3.0, 3.0]


def test_a_checkpoint_inside_an_interval_keeps_what_was_not_logged_yet(tmp_path: Path) -> None:
    """Going on from step 4, the row of step 6 still holds step 3, and trackers are told to forget the rest."""
    whole = Notes()
    loop(tmp_path / "a", Counter(), whole).run()
    loop(tmp_path / "b", Counter(), Notes(), steps=4, log_every=100).run()
    first, second = Counter(), Notes()
    short = loop(tmp_path / "c", first, Notes())
    short.hooks = [_Stop(5)]
    with pytest.raises(KeyboardInterrupt):
        short.run()
    again = Counter()
    loop(tmp_path / "c", again, second).run()
    assert second.resumed == [4]
    assert [step for step, _ in again.seen] == [4, 5, 6]
    assert second.rows == [row for row in whole.rows if row[0] > 4]
    assert float(again.total) == sum(range(7))


class _Stop:
    """Dies in the middle of a run, as a kill would."""

    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, step: int) -> dict[str, float]:
        raise KeyboardInterrupt


def test_micro_batches_share_a_step_and_only_the_step_is_counted(tmp_path: Path) -> None:
    """Two micro-batches: two calls with the same number and different shares."""
    step = Counter()
    loop(tmp_path, step, Notes(), steps=2, accumulate=2).run()
    assert [(number, share.micro, share.micros) for number, share in step.seen] == [
        (0, 0, 2),
        (0, 1, 2),
        (1, 0, 2),
        (1, 1, 2),
    ]


def test_the_best_checkpoint_survives_the_last_ones(tmp_path: Path) -> None:
    """keep-last-N plus best: the lowest value of the named metric, whichever step it came at."""
    best = BestConfig(metric="fd", goal="min")
    hooks = [Every(2, [5.0, 1.0, 3.0, 2.0])]
    loop(tmp_path, Counter(), Notes(), hooks=hooks, steps=8, checkpoint_every=2, best=best).run()
    store = CheckpointStore(tmp_path)
    found = store.best()
    assert found is not None and found.step == 4 and found.metric == {"fd": 1.0}
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-0000004", "step-0000008"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_leaving_the_numbers_stops_the_run_in_words_and_spares_the_last_checkpoint(
    tmp_path: Path, value: float
) -> None:
    """The message names the metric and its value; no checkpoint is written after the numbers were left."""
    with refused(NonFinite, f"loss = {value}", "last checkpoint", "intact", "lower learning rate"):
        loop(tmp_path, Counter({5: value}), Notes(), checkpoint_every=2).run()
    newest = CheckpointStore(tmp_path).latest()
    assert newest is not None and newest.name == "step-0000004"


def test_a_passing_fp16_overflow_is_left_out_of_the_mean_and_a_lasting_one_stops(tmp_path: Path) -> None:
    """The loss scale finds its size by overflowing; only a streak means that the run is lost."""
    notes = Notes()
    loop(tmp_path / "a", Counter({0: float("inf"), 1: float("nan")}), notes, "fp16").run()
    assert notes.rows[0] == (3, {"loss": 2.0, "epoch": 1.0})
    lost = Counter(dict.fromkeys(range(PATIENCE + 5), float("nan")))
    with refused(NonFinite, f"{PATIENCE} micro-batches", "loss = nan", "bf16 or fp32"):
        loop(tmp_path / "b", lost, Notes(), "fp16", steps=PATIENCE + 5).run()


def test_the_meter_waits_for_nothing_until_it_is_read() -> None:
    """Between two readings no value of the device is looked at."""
    meter = Meter(tolerant=False)
    meter.add({"loss": torch.zeros((), device="meta")})
    meter.add({"loss": torch.zeros((), device="meta"), "grad_norm": torch.zeros((), device="meta")})
    with pytest.raises((NotImplementedError, RuntimeError)):
        meter.read()


def test_refused_batches_are_reported_as_a_count_and_in_the_last_words() -> None:
    """The normaliser's counter is cumulative: its mean over an interval would say nothing."""
    meter = Meter(tolerant=True)
    for count in (0.0, 1.0, 2.0):
        meter.add({"loss": torch.tensor(1.0), "refused_batches": torch.tensor(count)})
    assert meter.read()["refused_batches"] == 2.0
    strict = Meter(tolerant=False)
    strict.add({"loss": torch.tensor(float("nan")), "refused_batches": torch.tensor(3.0)})
    with refused(NonFinite, "loss = nan", "3 batches"):
        strict.read()
