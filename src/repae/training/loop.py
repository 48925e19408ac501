"""The loop of every training: batches in, checkpoints and metrics out, and a way back after any kill."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from pydantic import Field

from repae.config import Config
from repae.data.batch import Batch
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.distributed import World, any_process, barrier, from_main, world
from repae.runtime.parallel import synchronise
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share
from repae.runtime.signals import Interrupt
from repae.track import Tracker
from repae.training.meter import Meter
from repae.training.state import Step


class BestConfig(Config):
    """Which logged or evaluated metric decides the checkpoint worth keeping."""

    metric: str
    goal: Literal["min", "max"] = "min"


class LoopConfig(Config):
    """How long, how large a batch, and how often what is written.

    ``batch_size`` is global: over all processes and all ``accumulate`` micro-batches of one step. Each micro-batch
    uses its own batch statistics in the normaliser and in the discriminator.
    """

    steps: int = Field(default=1000, ge=1)
    batch_size: int = Field(default=64, ge=1)
    accumulate: int = Field(default=1, ge=1)
    log_every: int = Field(default=10, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    keep_last: int = Field(default=2, ge=1)
    best: BestConfig | None = None


@runtime_checkable
class Hook(Protocol):
    """Something done beside training every so many steps, such as a preview; returns metrics to log.

    Those of the main process count: the loop hands them to all, so that all agree which checkpoint is the best.
    """

    every: int

    def __call__(self, step: int) -> dict[str, float]:
        """Called after step ``step`` (from 1)."""
        ...


@dataclass(frozen=True)
class Outcome:
    """Where a training stands when the loop returns: steps done, and whether they are all."""

    step: int
    finished: bool


@dataclass
class Loop:
    """One training from the newest checkpoint of ``store``, or from the start, to ``config.steps``.

    Args:
        step: what trains.
        batches: ``batches(start)`` gives this rank's micro-batches from step ``start`` on.
        store: where checkpoints are written.
        meta: JSON that enters every checkpoint, the resolved recipe above all.
        images: size of the data set, for the epoch count.
        trackers: receive one row of metrics per logging interval, on the main process.
        hooks: run every so many steps on all processes.
        among: the processes that share the batches; all of them unless the step says otherwise.
    """

    step: Step
    batches: Callable[[int], Iterator[Batch]]
    config: LoopConfig
    store: CheckpointStore
    _: KW_ONLY
    meta: dict[str, Any]
    precision: Precision
    device: torch.device
    images: int
    trackers: Sequence[Tracker] = ()
    hooks: Sequence[Hook] = ()
    among: World = field(default_factory=world)

    def __post_init__(self) -> None:
        # In fp16 an overflow is part of normal work: the scaler skips the update and lowers its scale.
        self._meter = Meter(tolerant=self.precision.name == "fp16")
        self._record = Record(self.config.best)
        # Meter and record are state too: a resumed run logs the row, and keeps the best, that it would have.
        self._parts = {**self.step.parts(), "meter": self._meter, "record": self._record}

    def run(self) -> Outcome:
        """Trains until the end or until SIGTERM or Ctrl-C, and writes a checkpoint in both cases.

        Raises:
            NonFinite: the objective left the numbers; nothing is written then, the last checkpoint stands.
        """
        done = self._resume()
        batches = self.batches(done)
        clock = Clock(self.config.batch_size, done)
        with Interrupt() as interrupt:
            while done < self.config.steps:
                self._train(batches, done)
                done += 1
                last = done == self.config.steps
                logging = last or done % self.config.log_every == 0
                row = (self._meter.read() if logging else {}) | self._run_hooks(done)
                self._log(done, row, clock)
                best = self._record.update(row)
                # Ranks hear of a signal at different moments; at a logging interval they agree.
                stop = (logging or world().size == 1) and any_process(interrupt.requested)
                if best or stop or last or done % self.config.checkpoint_every == 0:
                    self._meter.settle()  # On all processes; the one that writes would wait for the others for ever.
                    self.store.save(done, self._parts, self.meta, best=best)
                if stop:
                    break
        return Outcome(done, finished=done == self.config.steps)

    def _resume(self) -> int:
        newest = self.store.latest()
        barrier()  # All have looked before anyone writes.
        done = 0 if newest is None else self.store.load(newest, self._parts).step
        for tracker in self.trackers:
            tracker.resume(done)
        return done

    def _train(self, batches: Iterator[Batch], done: int) -> None:
        """One optimiser step, in ``accumulate`` micro-batches."""
        micros = self.config.accumulate
        for micro in range(micros):
            # Gradients travel once a step: the last micro-batch exchanges what all of them have added up.
            synchronise(self.step.modules(), on=micro == micros - 1)
            share = Share(micro, micros, self.among.rank, self.among.size)
            batch = next(batches).to(self.device)
            # One context for the whole step; what needs float32 (losses, norms, the discriminator) says so itself.
            with self.precision.autocast():
                self._meter.add(self.step(batch, done, share))

    def _run_hooks(self, done: int) -> dict[str, float]:
        row: dict[str, float] = {}
        for hook in self.hooks:
            if done % hook.every == 0 or done == self.config.steps:
                row |= from_main(hook(done))
        return row

    def _log(self, done: int, row: dict[str, float], clock: Clock) -> None:
        if not row:
            return
        row["epoch"] = float(done * self.config.batch_size // self.images)
        wall = clock.lap(done)
        for tracker in self.trackers:
            tracker.log(done, row, wall)


class Clock:
    """Wall-clock figures between two log lines."""

    def __init__(self, batch_size: int, done: int) -> None:
        self.batch_size = batch_size
        # Monotonic, since a corrected wall clock would give negative rates.
        self._begun = self._since = time.monotonic()
        self._cpu = time.process_time()
        self._done = done

    def lap(self, done: int) -> dict[str, float]:
        """Unix time, seconds and CPU seconds since this process's loop began, images per second since the last line."""
        now = time.monotonic()
        rate = (done - self._done) * self.batch_size / max(now - self._since, 1e-9)
        self._since, self._done = now, done
        seconds, cpu = now - self._begun, time.process_time() - self._cpu
        return {"time": time.time(), "seconds": seconds, "cpu_seconds": cpu, "images_per_second": rate}


class Record:
    """The best value so far of the metric that decides which checkpoint is kept beyond the last ones."""

    def __init__(self, config: BestConfig | None) -> None:
        self.config = config
        self.value: float | None = None

    def update(self, row: dict[str, float]) -> dict[str, float] | bool:
        """The metric by name when ``row`` holds a better value than ever before, which it then becomes; else False."""
        if self.config is None or self.config.metric not in row:
            return False
        value = row[self.config.metric]
        better = self.value is None or (value < self.value if self.config.goal == "min" else value > self.value)
        if not better:
            return False
        self.value = value
        return {self.config.metric: value}

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
