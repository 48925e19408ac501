"""Moving averages of weights and statistics."""

from __future__ import annotations

import copy
import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from repae.config import Config
from repae.runtime.parallel import unwrap

Statistics = Literal["average", "copy"]


class EmaConfig(Config):
    """How weights are averaged over the steps.

    Attributes:
        decay: weight of the past at each step (REPA, arXiv 2410.06940: 0.9999).
        warmup: start with a shorter memory, decay_n = min(decay, (1 + n) / (10 + n)) at the n-th update from 0, so
            that the initial weights are soon forgotten.
        statistics: whether running statistics of latents are averaged likewise or copied from the live model.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    warmup: bool = False
    statistics: Statistics = "average"


class EMA:
    """An exponential moving average of a module: every parameter, and with "average" every floating buffer.

    The average of a constant is that constant exactly. Integer buffers are copied. Names are those of the bare module,
    whatever wraps it.

    Attributes:
        module: the average, in eval mode and without gradients.
        count: updates so far.
    """

    def __init__(self, module: nn.Module, config: EmaConfig, *, buffers: Statistics = "average") -> None:
        live = unwrap(module)
        self.config = config
        self.count = 0
        self.module = copy.deepcopy(live).eval().requires_grad_(False)
        averaged: list[tuple[Tensor, Tensor]] = list(zip(self.module.parameters(), live.parameters()))
        copied: list[tuple[Tensor, Tensor]] = []
        for pair in zip(self.module.buffers(), live.buffers()):
            average = buffers == "average" and pair[0].is_floating_point()
            (averaged if average else copied).append(pair)
        self._averaged = _columns(averaged)
        self._copied = _columns(copied)

    @property
    def decay(self) -> float:
        """Of the next update."""
        if self.config.warmup:
            return min(self.config.decay, (1 + self.count) / (10 + self.count))
        return self.config.decay

    @torch.no_grad()
    def update(self) -> None:
        mine, live = self._averaged
        # A copy, since a lerp all the way gives nan where the average holds an infinity.
        if mine and self.decay == 0:
            torch._foreach_copy_(mine, live)  # pyright: ignore[reportPrivateImportUsage]
        elif mine:
            # A lerp, since e * d + p * (1 - d) drifts in float32 even where p never moves: 1.7e-4 in 20,000 updates.
            torch._foreach_lerp_(mine, live, 1 - self.decay)  # pyright: ignore[reportPrivateImportUsage]
        mine, live = self._copied
        if mine:
            torch._foreach_copy_(mine, live)  # pyright: ignore[reportPrivateImportUsage]
        self.count += 1

    def state_dict(self) -> dict[str, Any]:
        return {"module": self.module.state_dict(), "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.module.load_state_dict(state_dict["module"])
        self.count = state_dict["count"]


def short_run_warning(config: EmaConfig, steps: int) -> str | None:
    """What to say when averages over ``steps`` updates would still be mostly the initial weights, or None."""
    memories = steps * (1 - config.decay)
    if config.warmup or memories >= 3 or math.isclose(memories, 3, rel_tol=1e-6):
        return None
    left = config.decay**steps
    enough = math.floor(max(0.0, 1 - 3 / steps) * 1e6) / 1e6
    return (
        f"after {steps} steps at decay {config.decay} the averaged weights are still {left:.0%} initial weights; "
        f"use warmup, a decay of at most {enough:.6g}, or more steps"
    )


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [mine for mine, _ in pairs], [live for _, live in pairs]
