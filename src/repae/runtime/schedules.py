"""Schedules of a learning rate or a weight: factors as pure functions of the step, so that resuming needs no state."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from repae.config import Config

Fraction = Annotated[float, Field(ge=0, le=1)]


class Constant(Config):
    """The learning rate or weight itself, after a linear warm-up over the first ``warmup_steps`` updates."""

    kind: Literal["constant"] = "constant"
    warmup_steps: NonNegativeInt = 0

    depends_on_total: ClassVar[bool] = False
    """Whether another number of total steps changes what it gives for a step."""

    def factor(self, step: int, total_steps: int) -> float:
        """The factor of update ``step`` (from 0), in [0, 1]; the first update of a warm-up is not lost to a zero."""
        return min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0


class Cosine(Config):
    """A linear warm-up, then half a cosine from the learning rate down to its fraction ``final`` at the last update."""

    kind: Literal["cosine"] = "cosine"
    warmup_steps: NonNegativeInt = 0
    final: Fraction = 0.0

    depends_on_total: ClassVar[bool] = True

    def factor(self, step: int, total_steps: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        rest = total_steps - 1 - self.warmup_steps
        return _half_cosine(1.0, self.final, float(step - self.warmup_steps), float(rest))


class OneCycle(Config):
    """Up and down once, both along half a cosine (Smith and Topin, arXiv 1708.07120, as `torch`'s OneCycleLR).

    From 1 / ``start_divisor`` of the learning rate to all of it at the fraction ``rise`` of the run, then down to
    1 / ``end_divisor`` of the first value.
    """

    kind: Literal["one-cycle"] = "one-cycle"
    rise: Fraction = 0.3
    start_divisor: Annotated[float, Field(ge=1)] = 25.0
    end_divisor: Annotated[float, Field(ge=1)] = 1e4

    depends_on_total: ClassVar[bool] = True

    def factor(self, step: int, total_steps: int) -> float:
        start = 1 / self.start_divisor
        peak = self.rise * total_steps - 1
        if step <= peak:
            return _half_cosine(start, 1.0, float(step), peak)
        return _half_cosine(1.0, start / self.end_divisor, step - peak, total_steps - 1 - peak)


class Until(Config):
    """All of a weight until update ``stop``, nothing from it on (early termination: HASTE, arXiv 2505.16792).

    Over the last ``fall_steps`` updates before ``stop`` it falls linearly; 0 is a switch.
    """

    kind: Literal["until"] = "until"
    stop: PositiveInt
    fall_steps: NonNegativeInt = 0

    depends_on_total: ClassVar[bool] = False

    @model_validator(mode="after")
    def _falls_in_time(self) -> Until:
        if self.fall_steps > self.stop:
            raise ValueError(f"fall_steps {self.fall_steps} is more than stop {self.stop}; allowed: at most stop")
        return self

    def factor(self, step: int, total_steps: int) -> float:
        return min(1.0, max(0, self.stop - step) / (self.fall_steps + 1))


Schedule = Annotated[Constant | Cosine | OneCycle, Field(discriminator="kind")]
"""Of a learning rate."""

WeightSchedule = Annotated[Constant | Cosine | Until, Field(discriminator="kind")]
"""Of the weight of a loss term."""


def _half_cosine(first: float, last: float, position: float, length: float) -> float:
    """From ``first`` at position 0 to ``last`` at ``length`` and beyond."""
    if position >= length:
        return last
    return last + (first - last) * (1 + math.cos(math.pi * max(position, 0.0) / length)) / 2
