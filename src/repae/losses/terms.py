"""Named scalars and their weights: what is summed is what is logged."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class Terms:
    """The summands of one objective: L = sum_i w_i * l_i.

    Every term is logged by its name as the value it was added with, and enters the total with its weight. A term
    whose customary logged value already holds its weight (``kl_loss``, ``weighted_gan_loss``) is added with weight 1.
    """

    def __init__(self) -> None:
        self._terms: dict[str, tuple[Tensor, float]] = {}

    def add(self, name: str, value: Float[Tensor, ""], weight: float = 1.0) -> None:
        """Adds ``weight * value`` to the total and ``value`` to the log."""
        assert name not in self._terms, f"the term {name} is summed twice"
        self._terms[name] = (value, weight)

    @property
    def total(self) -> Float[Tensor, ""]:
        """The weighted sum, with its graph; terms of weight zero are only logged."""
        # 0 * inf is nan: a term that only informs must not spoil the sum.
        weighted = [weight * value for value, weight in self._terms.values() if weight != 0.0]
        assert weighted, "an objective without terms"
        return torch.stack(weighted).sum()

    def log(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, (value, _) in self._terms.items()}
