"""The adaptive solver of the probability-flow ODE: Dormand and Prince's pair of orders 5 and 4.

Every image of a batch has its own time, its own step and its own error control. A solver for one big state, such as
torchdiffeq's, takes one step for the whole batch, so that an image depends on its neighbours; here it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from repae.config import UserError
from repae.flow.guidance import VelocityField, widest
from repae.flow.path import Samples, along_batch

# Dormand and Prince, J. Comput. Appl. Math. 6 (1980): the stages; the last row is also the solution of order 5.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_PLACES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
_ERROR = tuple(fifth - fourth for fifth, fourth in zip((*_STAGES[-1], 0.0), _FOURTH))

Doubles = Float64[Tensor, " b"]
"""Times or lengths of steps, one for each image, on the CPU."""

FIRST_STEP = 0.05
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0


@torch.no_grad()
def dormand_prince(
    velocity: VelocityField,
    x: Samples,
    rtol: float,
    atol: float,
    *,
    breaks: Sequence[float] = (),
    state: torch.dtype = torch.float64,
    max_steps: int = 1000,
) -> Samples:
    """Integrate dx = v dt from t = 1 to 0, each image with steps of its own.

    A step of an image is accepted if the root mean square over its numbers of error / (`atol` + `rtol` |x|) is at most
    1. A step costs six evaluations of the whole batch and one wait for the device; images that have arrived wait for
    the others.

    Args:
        velocity: called with one time for each image.
        x: the initial noise.
        rtol: relative tolerance.
        atol: absolute tolerance.
        breaks: times in (0, 1), falling, at which the field jumps (`Guidance.breaks`): steps end there.
        state: dtype in which steps are added up.
        max_steps: tried steps at most.

    Raises:
        UserError: an image needs more than `max_steps`, or its velocity is not finite.
    """
    now = x.to(widest(x.device) if state == torch.float64 else state)
    # On the CPU: a few numbers in float64, which not every device has.
    wish = torch.full((len(x),), FIRST_STEP, dtype=torch.float64)
    for begin, end in pairwise((1.0, *breaks, 0.0)):
        now, wish = _stretch(velocity, now, x.dtype, begin, end, wish, (rtol, atol), max_steps)
    return now


def _stretch(
    velocity: VelocityField,
    now: Samples,
    seen: torch.dtype,
    begin: float,
    end: float,
    wish: Doubles,
    tolerances: tuple[float, float],
    max_steps: int,
) -> tuple[Samples, Doubles]:
    """All images from `begin` to `end`, where the field is smooth; the state and the steps they would take next."""

    def field(x: Tensor, t: Doubles) -> Tensor:
        # Guidance is decided in the middle: the ends, where it jumps, belong to two stretches.
        return velocity(x.to(seen), t, (begin + end) / 2).to(now.dtype)

    t = torch.full_like(wish, begin)
    slope = field(now, t)
    for _ in range(max_steps):
        step = torch.minimum(wish, t - end)
        slopes, after = _tried(field, now, slope, t, step)
        ratio = _error_ratio(slopes, now, after, step, tolerances)
        accepted = (ratio <= 1) & (step > 0)
        chosen = along_batch(accepted.to(now), now).bool()
        # First same as last: the seventh slope of an accepted step is the first one of the next.
        now, slope = torch.where(chosen, after, now), torch.where(chosen, slopes[-1], slope)
        wish = _next_step(wish, step, ratio, accepted)
        # `end` itself and not t - step, which rounding could leave just short of it.
        t = torch.where(accepted, torch.where(step < t - end, t - step, end), t)
        if bool((t <= end).all()):
            return now, wish
    raise UserError(
        f"after {max_steps} steps an image was at time {float(t.max()):.4g} and not at {end:g}: rtol {tolerances[0]:g} "
        f"and atol {tolerances[1]:g} ask for more than this network's arithmetic can give, or its velocity is not "
        "finite; use larger tolerances, precision fp32, or a sampler of fixed steps"
    )


def _tried(
    field: Callable[[Tensor, Tensor], Tensor], now: Samples, slope: Samples, t: Doubles, step: Doubles
) -> tuple[list[Tensor], Samples]:
    """The seven slopes of one step of each image, and where it leads."""
    slopes, after, length = [slope], now, along_batch(step.to(now), now)
    for weights, place in zip(_STAGES, _PLACES):
        after = now - length * _sum(weights, slopes)
        slopes.append(field(after, t - place * step))
    return slopes, after


def _error_ratio(
    slopes: Sequence[Tensor], before: Samples, after: Samples, step: Doubles, tolerances: tuple[float, float]
) -> Doubles:
    """Each image's estimated error in units of what is allowed, on the CPU."""
    rtol, atol = tolerances
    error = along_batch(step.to(before), before) * _sum(_ERROR, slopes)
    allowed = atol + rtol * torch.maximum(before.abs(), after.abs())
    return (error / allowed).square().flatten(1).mean(1).sqrt().double().cpu()


def _next_step(wish: Doubles, step: Doubles, ratio: Doubles, accepted: Bool[Tensor, " b"]) -> Doubles:
    """The step that should just be accepted; one cut short by the end of the stretch does not lower it."""
    # The estimated error grows with the fifth power of the step.
    factor = (SAFETY * ratio.clamp(min=1e-12) ** -0.2).nan_to_num(SHRINK).clamp(SHRINK, GROW)
    tried = step * torch.where(accepted, factor, factor.clamp(max=1.0))
    tried = torch.where(accepted & (step < wish), torch.maximum(wish, tried), tried)
    return torch.where(step > 0, tried, wish)


def _sum(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    return sum((w * k for w, k in zip(weights, slopes) if w), start=torch.zeros_like(slopes[0]))
