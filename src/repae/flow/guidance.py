"""Guidance on an interval of times, as a wrapper round a network: classifier-free, or by a weaker network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from repae.config import Config, UserError
from repae.flow.path import PerSample, Samples, batch_times

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`network(x, t, y) -> velocity` with x `[B, ...]`, t `[B]` and labels y `[B]`."""

Times = float | PerSample
"""One time for the whole batch, or one for each of its images."""

VelocityField = Callable[[Tensor, Times, float], Tensor]
"""`field(x, t, start) -> velocity`: what a sampler integrates.

x is `[B, ...]`; t is a Python float, the same for the whole batch, or `[B]` where every image has a time of its own
(the adaptive sampler). `start` is the time at which guidance is decided, always a Python float, so that the decision
never reads the device: t itself, in Heun's corrector the time where its step began, and for images at their own times
the middle of the stretch in which all of them are. A field without an interval ignores it: `lambda x, t, _: ...`.
"""


class _OnInterval(Config):
    scale: float = Field(1.0, ge=1)
    low: float = Field(0.0, ge=0, le=1)
    high: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> _OnInterval:
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low must not exceed high")
        return self

    def active(self, t: float) -> bool:
        return self.scale > 1 and self.low <= t <= self.high

    @property
    def breaks(self) -> tuple[float, ...]:
        """The times inside (0, 1) at which the guided velocity jumps, the later first."""
        ends = (self.high, self.low) if self.scale > 1 else ()
        return tuple(t for t in ends if 0 < t < 1)


class Guidance(_OnInterval):
    """Classifier-free guidance v = v_null + scale (v_label - v_null) for `low` <= t <= `high`, on all channels.

    The interval is closed; outside it, and everywhere at scale 1, the network runs once, with the labels only.
    (Ho and Salimans, arXiv 2207.12598; interval: Kynkaanniemi et al., arXiv 2404.07724.)
    """

    kind: Literal["classifier-free"] = "classifier-free"


class Autoguidance(_OnInterval):
    """Guidance by a weaker network: v = v_weak + scale (v - v_weak) for `low` <= t <= `high`, on all channels.

    Both networks see the labels; no null class is needed. The weaker one, less trained or smaller, must have been
    trained on the same latents. (Karras et al., arXiv 2406.02507.)
    """

    kind: Literal["autoguidance"] = "autoguidance"


UNGUIDED = Guidance(scale=1.0, low=0.0, high=1.0)
"""No guidance: the network with the labels."""


def widest(device: torch.device) -> torch.dtype:
    """The dtype in which sampling adds up: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def guide(network: Network, labels: Int[Tensor, " b"], null_label: int | None, guidance: Guidance) -> VelocityField:
    """Make a velocity field of a conditional network.

    `labels` `[B]` belong to the rows of x, in order. Where guidance is active the network sees a batch of 2B, labels
    first and `null_label` second, in one call; elsewhere it sees B. The two velocities are combined in float64
    (float32 on MPS).

    Raises:
        UserError: the scale exceeds 1 and the model has no null class (`null_label` is None).
    """
    # Decided first, so that a model without a null class can be sampled too.
    if guidance.scale == 1:
        return lambda x, t, _: network(x, batch_times(t, x), labels)
    null = check_null_label(null_label, guidance)
    twice = torch.cat([labels, torch.full_like(labels, null)])

    def field(x: Samples, t: Times, start: float) -> Samples:
        times = batch_times(t, x)
        if not guidance.active(start):
            return network(x, times, labels)
        both = network(torch.cat([x, x]), torch.cat([times, times]), twice)
        # Wide before the difference: the scale multiplies whatever error the subtraction makes.
        conditional, null = both.to(widest(x.device)).chunk(2)
        # All channels, where SiT's own code guides three of the latent's four.
        return null + guidance.scale * (conditional - null)

    return field


def check_null_label(null_label: int | None, guidance: Guidance) -> int:
    """The null class, which guidance at a scale above 1 needs; `UserError` where the model has none."""
    if null_label is None:
        raise UserError(
            f"guidance.scale is {guidance.scale}, but the model has no null class, so only 1 is allowed: "
            "sample with guidance.scale 1, or use a model trained with label dropout (class_dropout_prob above 0)"
        )
    return null_label


def autoguide(network: Network, weak: Network, labels: Int[Tensor, " b"], guidance: Autoguidance) -> VelocityField:
    """Make a velocity field of a network and a weaker one.

    `labels` `[B]` belong to the rows of x, in order. Where guidance is active both networks see the same batch;
    elsewhere only the first runs. The two velocities are combined in float64 (float32 on MPS).
    """

    def field(x: Samples, t: Times, start: float) -> Samples:
        times = batch_times(t, x)
        strong = network(x, times, labels)
        if not guidance.active(start):
            return strong
        weaker = weak(x, times, labels).to(widest(x.device))
        return weaker + guidance.scale * (strong.to(weaker.dtype) - weaker)

    return field
