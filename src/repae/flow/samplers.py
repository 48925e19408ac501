"""Samplers: from noise at t = 1 to data at t = 0 along a velocity field.

The functions take the initial noise `x` `[B, ...]` and return the end point in the dtype of the state, float64 unless
told otherwise (float32 on MPS, which has no float64). The field sees x in the dtype of the initial noise. Gradients are
not recorded. No step waits for the device. The configs name the same samplers in a recipe.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from repae.config import Config, UserError
from repae.flow.adaptive import dormand_prince
from repae.flow.convert import velocity_to_data, velocity_to_score
from repae.flow.guidance import VelocityField, widest
from repae.flow.path import Path, Samples, batch_times

Noise = Callable[[int, Tensor], Tensor]
"""`noise(index, like) -> eps`: standard normal noise of the shape of `like` for random step `index` = 0, 1, ..."""

LastStep = Literal["mean", "tweedie", "euler"]

LAST_STEP_SIZE = 0.04
"""The time at which Euler-Maruyama stops drawing noise: from here to 0 it takes one deterministic step."""


@torch.no_grad()
def euler(velocity: VelocityField, x: Samples, steps: int, state: torch.dtype = torch.float64) -> Samples:
    """Euler's method for the probability-flow ODE dx = v dt on `steps` equal steps; `steps` evaluations.

    Raises:
        UserError: `steps` is below 1.
    """
    now = x.to(_state_dtype(x, state))
    for t, t_next in pairwise(_grid(steps)):
        now = now + (t_next - t) * velocity(now.to(x.dtype), t, t).to(now.dtype)
    return now


@torch.no_grad()
def heun(
    velocity: VelocityField, x: Samples, steps: int, state: torch.dtype = torch.float64, guide_by_end: bool = False
) -> Samples:
    """Heun's method for the probability-flow ODE on `steps` equal steps, the last by Euler; 2 steps - 1 evaluations.

    The corrector evaluates the field at the end of a step. It is guided if the start of the step lies in the guidance
    interval, as in REPA and REPA-E; with `guide_by_end`, if the end does, where it is evaluated.

    Raises:
        UserError: `steps` is below 1.
    """
    now = x.to(_state_dtype(x, state))
    for t, t_next in pairwise(_grid(steps)):
        slope = velocity(now.to(x.dtype), t, t).to(now.dtype)
        # No corrector at t = 0, as in the reference: hence 2 steps - 1 evaluations.
        if t_next > 0:
            predicted = now + (t_next - t) * slope
            decided_at = t_next if guide_by_end else t
            slope = (slope + velocity(predicted.to(x.dtype), t_next, decided_at).to(now.dtype)) / 2
        now = now + (t_next - t) * slope
    return now


@torch.no_grad()
def euler_maruyama(
    velocity: VelocityField,
    x: Samples,
    steps: int,
    path: Path,
    noise: Noise,
    last: LastStep = "mean",
    state: torch.dtype = torch.float64,
) -> Samples:
    """Euler-Maruyama for the reverse SDE dx = (v - w score / 2) dt + sqrt(w) dW, w(t) = 2 t; `steps` evaluations.

    `steps` - 1 equal steps from t = 1 to .04, with `noise(index, like)` for index = 0 .. `steps` - 2, then one
    deterministic step to 0 (SiT, arXiv 2401.08740, Sec. 2; w as in REPA and REPA-E, on both paths). The last step is

    - "mean": the drift of the SDE without its noise. The reference's rule, behind its published numbers. On the linear
      path it takes the noise estimate away once more than the posterior mean does: narrow data come out too narrow.
    - "tweedie": the posterior mean E[data | x].
    - "euler": a step of the ODE; on the linear path the same as "tweedie".

    Raises:
        UserError: `steps` is below 2, or `last` is none of the three.
    """
    if last not in _LAST_STEPS:
        raise UserError(f"last is {last!r}; allowed are {', '.join(_LAST_STEPS)}: choose one of them")
    now = x.to(_state_dtype(x, state))
    for index, (t, t_next) in enumerate(pairwise(_noisy_grid(steps))):
        v = velocity(now.to(x.dtype), t, t).to(now.dtype)
        # sqrt(w |dt|) with w = 2 t, and dt below 0.
        diffusion = math.sqrt(2 * t * (t - t_next)) * noise(index, now).to(now)
        # The score stands in the drift, once: as dt is negative, adding it again would flip its sign.
        now = now + (t_next - t) * _drift(v, now, t, path) + diffusion
    v = velocity(now.to(x.dtype), LAST_STEP_SIZE, LAST_STEP_SIZE).to(now.dtype)
    return _LAST_STEPS[last](v, now, LAST_STEP_SIZE, path)


def _state_dtype(x: Tensor, state: torch.dtype) -> torch.dtype:
    return widest(x.device) if state == torch.float64 else state


def _grid(steps: int) -> list[float]:
    if steps < 1:
        raise UserError(f"steps is {steps}; at least 1 is needed: ask for more steps")
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()


def _noisy_grid(steps: int) -> list[float]:
    if steps < 2:
        raise UserError(f"steps is {steps}; at least 2 are needed, a random and a last one: ask for more steps")
    # Stops short of 0, where the score of a velocity is infinite.
    return torch.linspace(1, LAST_STEP_SIZE, steps, dtype=torch.float64).tolist()


def _drift(v: Tensor, x: Tensor, t: float, path: Path) -> Tensor:
    """v - w score / 2 with w = 2 t."""
    # Minus, for time runs down: with dt < 0 the step climbs the density, against the noise that is added.
    return v - t * velocity_to_score(v, x, batch_times(t, x), path)


def _last_mean(v: Tensor, x: Tensor, t: float, path: Path) -> Tensor:
    return x - t * _drift(v, x, t, path)


def _last_tweedie(v: Tensor, x: Tensor, t: float, path: Path) -> Tensor:
    return velocity_to_data(v, x, batch_times(t, x), path)


def _last_euler(v: Tensor, x: Tensor, t: float, path: Path) -> Tensor:
    return x - t * v


_LAST_STEPS = {"mean": _last_mean, "tweedie": _last_tweedie, "euler": _last_euler}


class Sampler(Config, ABC):
    """A sampler with its settings, as a recipe names it. `state` is the precision in which steps are added up."""

    state: Literal["float64", "float32"] = "float64"

    @property
    @abstractmethod
    def evaluations(self) -> int | None:
        """How often one run calls the velocity field; None if the images decide."""

    @abstractmethod
    def run(
        self, velocity: VelocityField, x: Samples, noise: Noise, path: Path, breaks: Sequence[float] = ()
    ) -> Samples:
        """Integrate from the initial noise `x` to data of the same shape and dtype.

        `noise` and `path`, the one the network was trained on, are what a stochastic sampler needs; the ODE needs
        neither. `breaks`, where the field jumps (`Guidance.breaks`), is what an adaptive one needs; equal steps are
        taken wherever the field jumps.
        """

    def _state(self) -> torch.dtype:
        return {"float64": torch.float64, "float32": torch.float32}[self.state]


class Euler(Sampler):
    kind: Literal["euler"] = "euler"
    steps: int = Field(50, ge=1)

    @property
    @override
    def evaluations(self) -> int:
        return self.steps

    @override
    def run(
        self, velocity: VelocityField, x: Samples, noise: Noise, path: Path, breaks: Sequence[float] = ()
    ) -> Samples:
        return euler(velocity, x, self.steps, self._state()).to(x.dtype)


class Heun(Sampler):
    kind: Literal["heun"] = "heun"
    steps: int = Field(50, ge=1)
    guide_by_end: bool = False

    @property
    @override
    def evaluations(self) -> int:
        return 2 * self.steps - 1

    @override
    def run(
        self, velocity: VelocityField, x: Samples, noise: Noise, path: Path, breaks: Sequence[float] = ()
    ) -> Samples:
        return heun(velocity, x, self.steps, self._state(), self.guide_by_end).to(x.dtype)


class EulerMaruyama(Sampler):
    kind: Literal["euler-maruyama"] = "euler-maruyama"
    steps: int = Field(250, ge=2)
    last: LastStep = "mean"

    @property
    @override
    def evaluations(self) -> int:
        return self.steps

    @override
    def run(
        self, velocity: VelocityField, x: Samples, noise: Noise, path: Path, breaks: Sequence[float] = ()
    ) -> Samples:
        return euler_maruyama(velocity, x, self.steps, path, noise, self.last, self._state()).to(x.dtype)


class DormandPrince(Sampler):
    """The adaptive method of orders 5 and 4 for the probability-flow ODE, each image with its own steps.

    See `dormand_prince`. The tolerances are SiT's; `max_steps` ends a hopeless search.
    """

    kind: Literal["dopri5"] = "dopri5"
    rtol: float = Field(1e-3, gt=0)
    atol: float = Field(1e-6, gt=0)
    max_steps: int = Field(1000, ge=1)

    @property
    @override
    def evaluations(self) -> None:
        return None

    @override
    def run(
        self, velocity: VelocityField, x: Samples, noise: Noise, path: Path, breaks: Sequence[float] = ()
    ) -> Samples:
        end = dormand_prince(
            velocity, x, self.rtol, self.atol, breaks=breaks, state=self._state(), max_steps=self.max_steps
        )
        return end.to(x.dtype)


AnySampler = Annotated[Euler | Heun | EulerMaruyama | DormandPrince, Field(discriminator="kind")]
"""The samplers a recipe can name, told apart by `kind`."""
