"""Probability paths between data (t = 0) and Gaussian noise (t = 1)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from repae.config import Config

Samples = Float[Tensor, "b *rest"]
"""What moves along a path: a batch, of any shape."""

PerSample = Float[Tensor, " b"]
"""A time, or another number, for each of them."""


class PathSample(NamedTuple):
    """A point of a path and what the network must predict there; both have the shape and dtype of the data."""

    x_t: Samples
    velocity: Samples


def along_batch(values: PerSample, like: Samples) -> Float[Tensor, "b *ones"]:
    """View one value per sample as `[B, 1, ..., 1]` in the dtype of `like`, to multiply it with."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


def batch_times(t: float | PerSample, like: Samples) -> PerSample:
    """The time t for every sample of `like`, or each one's own, in its dtype and on its device."""
    if isinstance(t, Tensor):
        return t.to(like)
    return torch.full((len(like),), t, dtype=like.dtype, device=like.device)


class Path(Config, ABC):
    """A Gaussian path x_t = alpha(t) x + sigma(t) eps with t in [0, 1], t = 0 data and t = 1 noise.

    A path is its four coefficients. They are computed in the dtype of `t`, elementwise, and are exact at the ends:
    alpha(0) = sigma(1) = 1 and alpha(1) = sigma(0) = 0. The velocity of the path is alpha'(t) x + sigma'(t) eps
    (stochastic interpolants as in SiT, arXiv 2401.08740, Sec. 2).
    """

    @abstractmethod
    def alpha(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Share of the data at time t."""

    @abstractmethod
    def sigma(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Share of the noise at time t."""

    @abstractmethod
    def d_alpha(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Derivative of alpha with respect to t."""

    @abstractmethod
    def d_sigma(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Derivative of sigma with respect to t."""

    @abstractmethod
    def time(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The time in [0, 1] at which log(sigma / alpha) has the given value."""

    def sample(self, x: Samples, noise: Samples, t: PerSample) -> PathSample:
        """The point x_t and its velocity, for data `x`, standard normal `noise` and one time in [0, 1] per sample.

        The result has the dtype of `x`, whatever the dtype of `t`.
        """
        x_t = along_batch(self.alpha(t), x) * x + along_batch(self.sigma(t), x) * noise
        velocity = along_batch(self.d_alpha(t), x) * x + along_batch(self.d_sigma(t), x) * noise
        return PathSample(x_t, velocity)


class LinearPath(Path):
    """alpha = 1 - t, sigma = t: straight lines with the constant velocity eps - x."""

    kind: Literal["linear"] = "linear"

    @override
    def alpha(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return 1 - t

    @override
    def sigma(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return t

    @override
    def d_alpha(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -torch.ones_like(t)

    @override
    def d_sigma(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.ones_like(t)

    @override
    def time(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        # sigma / alpha = t / (1 - t), whose logarithm is the logit of t.
        return torch.sigmoid(log_ratio)


class CosinePath(Path):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): variance-preserving, on the quarter circle at constant speed."""

    kind: Literal["cosine"] = "cosine"

    @override
    def alpha(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        # The sine of the complement: in float32 the cosine of pi / 2 is -4e-8, and alpha(1) must be 0.
        return torch.sin(math.pi / 2 * (1 - t))

    @override
    def sigma(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return torch.sin(math.pi / 2 * t)

    @override
    def d_alpha(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return -math.pi / 2 * self.sigma(t)

    @override
    def d_sigma(self, t: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        return math.pi / 2 * self.alpha(t)

    @override
    def time(self, log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        # sigma / alpha = tan(pi t / 2).
        return 2 / math.pi * torch.atan(torch.exp(log_ratio))


AnyPath = Annotated[LinearPath | CosinePath, Field(discriminator="kind")]
"""The paths a recipe can name, told apart by `kind`."""
