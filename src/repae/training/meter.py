"""Metrics kept on the device until the logging interval: one host synchronisation for many steps."""

from __future__ import annotations

import math
from typing import Any

import torch

from repae.config import UserError
from repae.runtime.distributed import all_reduce_mean
from repae.training.state import Metrics

PATIENCE = 25
"""Consecutive non-finite micro-batches after which an fp16 overflow no longer counts as passing."""


class NonFinite(UserError):  # noqa: N818 (a state, not a mistake)
    """The training objective is no longer a number."""


class Meter:
    """Collects device scalars of every micro-batch; ``read`` returns their means over the interval and the ranks.

    ``tolerant`` (fp16) leaves non-finite values out of the means and stops only when they persist; otherwise the
    first one stops the run. State: the rows not yet read and the length of the current non-finite streak.
    """

    def __init__(self, tolerant: bool) -> None:
        self.tolerant = tolerant
        self._pending: list[tuple[tuple[str, ...], torch.Tensor]] = []
        self._rows: list[dict[str, float]] = []
        self._streak = 0

    def add(self, metrics: Metrics) -> None:
        """Takes one micro-batch's scalars without waiting for them."""
        # One vector, so that settling needs one collective and one copy however many metrics there are.
        self._pending.append((tuple(metrics), torch.stack([value.detach().float() for value in metrics.values()])))

    def settle(self) -> None:
        """Fetches what is pending, over ranks, in one transfer, and stops a run that has left the numbers.

        Raises:
            NonFinite: naming the first metric that is not finite.
        """
        if not self._pending:
            return
        # Averaged before anyone looks, so that all ranks see the same nan and stop at the same step.
        values = iter(all_reduce_mean(torch.cat([vector for _, vector in self._pending])).tolist())
        for names, _ in self._pending:
            row = {name: next(values) for name in names}
            bad = [name for name, value in row.items() if not math.isfinite(value)]
            self._streak = self._streak + 1 if bad else 0
            if bad and (not self.tolerant or self._streak >= PATIENCE):
                raise NonFinite(_explain(bad, row, self._streak, self.tolerant))
            self._rows.append(row)
        self._pending.clear()

    def read(self) -> dict[str, float]:
        """Means of the finite values since the last reading; an empty dict when nothing came."""
        self.settle()
        names = {name: None for row in self._rows for name in row}
        means: dict[str, float] = {}
        for name in names:
            values = [row[name] for row in self._rows if name in row and math.isfinite(row[name])]
            if values:
                means[name] = math.fsum(values) / len(values)
        # A running count, unlike the others: its mean over the interval would say nothing.
        if self._rows and "refused_batches" in self._rows[-1]:
            means["refused_batches"] = self._rows[-1]["refused_batches"]
        self._rows.clear()
        return means

    def state_dict(self) -> dict[str, Any]:
        self.settle()
        return {"rows": self._rows, "streak": self._streak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._pending.clear()
        self._rows = [dict(row) for row in state["rows"]]
        self._streak = int(state["streak"])


def _explain(bad: list[str], row: dict[str, float], streak: int, tolerant: bool) -> str:
    seen = ", ".join(f"{name} = {row[name]}" for name in bad[:4])
    length = f"for {streak} micro-batches in a row" if tolerant else "in this logging interval"
    refused = row.get("refused_batches", 0.0)
    latents = f"; the latent normaliser has refused {refused:.0f} batches" if refused else ""
    remedy = "bf16 or fp32 precision" if tolerant else "a lower learning rate, or the images of this batch"
    return (
        f"the training left the numbers {length}: {seen}{latents}. The last checkpoint is from before and is intact; "
        f"try {remedy}, then run the same command again"
    )
