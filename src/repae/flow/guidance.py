"""Classifier-free guidance on an interval of times, as a wrapper round a network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from repae.config import Config, UserError
from repae.flow.path import batch_times

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`network(x, t, y) -> velocity` with x `[B, ...]`, t `[B]` and labels y `[B]`."""

VelocityField = Callable[[Tensor, float, float], Tensor]
"""`field(x, t, start) -> velocity`: what a sampler integrates.

x is `[B, ...]`; t, the same for the whole batch, is a Python float, so that decisions about it never read the device.
`start` is the time at which guidance is decided: t itself, but in Heun's corrector the time where its step began.
A field without an interval ignores it: `lambda x, t, _: ...`.
"""


class Guidance(Config):
    """Classifier-free guidance v = v_null + scale (v_label - v_null) for `low` <= t <= `high`, on all channels.

    The interval is closed; outside it, and everywhere at scale 1, the network runs once, with the labels only.
    (Ho and Salimans, arXiv 2207.12598; interval: Kynkaanniemi et al., arXiv 2404.07724.)
    """

    scale: float = Field(1.0, ge=1)
    low: float = Field(0.0, ge=0, le=1)
    high: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Guidance:
        if self.low > self.high:
            raise ValueError(f"low is {self.low} and high is {self.high}; low must not exceed high")
        return self

    def active(self, t: float) -> bool:
        """Whether the velocity at time t is guided."""
        return self.scale > 1 and self.low <= t <= self.high


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
    if guidance.scale == 1:
        return lambda x, t, _: network(x, batch_times(t, x), labels)
    if null_label is None:
        raise UserError(
            f"guidance.scale is {guidance.scale}, but the model has no null class, so only 1 is allowed: "
            "sample with guidance.scale 1, or use a model trained with label dropout (class_dropout_prob above 0)"
        )
    twice = torch.cat([labels, torch.full_like(labels, null_label)])

    def field(x: Float[Tensor, "b *rest"], t: float, start: float) -> Float[Tensor, "b *rest"]:
        if not guidance.active(start):
            return network(x, batch_times(t, x), labels)
        pair = torch.cat([x, x])
        conditional, null = network(pair, batch_times(t, pair), twice).to(widest(x.device)).chunk(2)
        return null + guidance.scale * (conditional - null)

    return field
