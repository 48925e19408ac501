"""Where on the path training looks: distributions of the time t in [0, 1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from repae.config import Config
from repae.flow.path import Path

BELOW_ONE = 1 - 2**-24
"""The largest float32 below 1."""


class Time(Config, ABC):
    """A distribution of training times."""

    @abstractmethod
    def sample(self, n: int, path: Path, generator: torch.Generator, device: torch.device | str) -> Float[Tensor, " n"]:
        """Draw `n` times in [0, 1) as float32 on `device`, which must be the generator's."""


class UniformTime(Time):
    """t uniform on [0, 1), the same on every path."""

    kind: Literal["uniform"] = "uniform"

    @override
    def sample(self, n: int, path: Path, generator: torch.Generator, device: torch.device | str) -> Float[Tensor, " n"]:
        return torch.rand(n, generator=generator, device=device, dtype=torch.float32)


class LogNormalTime(Time):
    """sigma(t) / alpha(t) = exp(N(mean, std^2)), whatever the path.

    The noise-to-data ratio of EDM (arXiv 2206.00364, Table 1), whose own values are (-1.2, 1.2); REPA and REPA-E use
    (0, 1), under which t on the linear path has mean .500 and standard deviation .208. Draws that round to 1 in
    float32 become the largest number below 1.
    """

    kind: Literal["log-normal"] = "log-normal"
    mean: float = 0.0
    std: float = Field(1.0, gt=0)

    @override
    def sample(self, n: int, path: Path, generator: torch.Generator, device: torch.device | str) -> Float[Tensor, " n"]:
        normal = torch.randn(n, generator=generator, device=device, dtype=torch.float32)
        return path.time(self.mean + self.std * normal).clamp(max=BELOW_ONE)


AnyTime = Annotated[UniformTime | LogNormalTime, Field(discriminator="kind")]
"""The time distributions a recipe can name, told apart by `kind`."""
