"""Micro-batches add up to the large batch, for three optimisers, in every precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from players import IMAGES, WHOLE, batch, setup, step

from repae.runtime.precision import Precision
from repae.runtime.seeds import Share

PLAYERS = ("vae", "denoiser", "discriminator")
MICROS = 4

TOLERANCE = {"fp32": 1e-6, "bf16": 3e-2, "fp16": 4e-3}
"""Of the gradient's norm. A lost micro-batch leaves a quarter of the gradient missing, far above each."""


def game(accumulate: int, precision: str) -> Any:
    """A game without statistics of the batch: fixed latent norm, ActNorm initialised by one pass, no LeCam."""
    config = setup(
        **{
            "latent_norm.tracking": "fixed",
            "discriminator.norm": "act",
            "losses.lecam_regularization_weight": 0,
            "loop.accumulate": accumulate,
        }
    )
    made = step(config, precision=precision)
    images = batch().images.float() / 127.5 - 1
    with torch.no_grad():
        made.models.discriminator(images)
    return made


def gradients(accumulate: int, precision: str) -> dict[str, torch.Tensor]:
    """Each player's accumulated, unscaled gradient before clipping, flattened."""
    made = game(accumulate, precision)
    seen: dict[str, torch.Tensor] = {}
    for name in PLAYERS:
        optimiser = getattr(made.optimise, name)

        def update(name: str = name, optimiser: Any = optimiser, original: Any = optimiser.update) -> torch.Tensor:
            optimiser.unscale()
            seen[name] = torch.cat([p.grad.flatten() for p in optimiser.parameters if p.grad is not None]).double()
            return original()

        optimiser.update = update
    whole = batch()
    for micro in range(accumulate):
        share = Share(micro, accumulate, 0, 1)
        assert not seen, "an update came before the last micro-batch"
        with Precision(precision, torch.device("cpu")).autocast():
            metrics = made(whole.map(share.of), 0, share)
        assert ("grad_norm_sit" in metrics) == (micro == accumulate - 1)
    assert made.averages.denoiser.count == 1, "averages follow updates, not micro-batches"
    return seen


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_accumulated_gradients_equal_one_large_batch(precision: str) -> None:
    """The same images, times and noises in four micro-batches or in one: the same three gradients.

    A loss scale shared by three optimisers, or unscaled by each other, loses the earlier micro-batches of two of them.
    """
    large, small = gradients(1, precision), gradients(MICROS, precision)
    for name in PLAYERS:
        gap = (large[name] - small[name]).norm() / large[name].norm()
        assert gap <= TOLERANCE[precision], f"{name} in {precision}: {gap:.1e} of the gradient's norm"


def test_no_micro_batch_is_lost() -> None:
    """With the last micro-batches blank, what the first one contributed must still be there."""
    full = gradients(MICROS, "fp16")
    for name in PLAYERS:
        assert full[name].norm() > 0
    made = game(MICROS, "fp16")
    share = Share(0, MICROS, 0, 1)
    with Precision("fp16", torch.device("cpu")).autocast():
        made(batch().map(share.of), 0, share)
    for name in PLAYERS:
        first = [p.grad for p in getattr(made.optimise, name).parameters if p.grad is not None]
        assert first and any(g.any() for g in first), f"{name} forgot its first micro-batch"
    assert WHOLE.micros == 1 and IMAGES % MICROS == 0
