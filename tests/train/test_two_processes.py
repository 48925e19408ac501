"""Two processes at half the batch each train as one process does, statistics of the batch included."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from players import IMAGES, batch, setup, step
from processes import run_processes

from repae.runtime.distributed import world
from repae.runtime.schedules import Until
from repae.runtime.seeds import Share
from repae.runtime.wrapping import unwrap
from repae.train.methods import RepaE

STEPS = 3
PARTS = ("vae", "denoiser", "discriminator", "latent_norm")


def train(**changes: Any) -> dict[str, Any]:
    """Three joint steps with GAN and LeCam on this process's share of each batch; all weights and statistics after."""
    game = step(setup(**changes))
    share = Share(0, 1, world().rank, world().size)
    kl = []
    for number in range(STEPS):
        whole = batch(number)
        metrics = game(whole.map(share.of), number, share)
        kl.append(metrics["kl_loss"])
    state = {
        f"{part}.{name}": tensor.clone()
        for part in PARTS
        for name, tensor in unwrap(getattr(game.models, part)).state_dict().items()
    }
    state |= {f"lecam.{name}": tensor for name, tensor in game.loss.lecam.state_dict().items()}
    state |= {f"ema.{name}": tensor for name, tensor in game.averages.denoiser.module.state_dict().items()}
    return {"state": state, "kl": torch.stack(kl)}


def train_batch_norm() -> dict[str, Any]:
    return train(**{"discriminator.norm": "batch"})


def train_act_norm() -> dict[str, Any]:
    return train(**{"discriminator.norm": "act"})


def train_beyond_the_alignment() -> dict[str, Any]:
    """The projectors are idle from the second step on, for whose gradients data parallelism would wait for ever."""
    return train(method=RepaE(align_schedule=Until(stop=1)))


@pytest.mark.slow
@pytest.mark.parametrize("work", [train_batch_norm, train_act_norm, train_beyond_the_alignment])
def test_two_processes_equal_one(work: Any) -> None:
    """Weights bit-equal between the ranks and within 5e-6 of one process: nothing is computed over half a batch.

    Latent statistics, the discriminator's batch norm or ActNorm initialisation, LeCam's means and the gradients are
    all global; each rank draws the global batch's randomness and takes its share.
    """
    alone = work()
    first, second = run_processes(work, size=2)
    assert first["state"].keys() == alone["state"].keys()
    for name, expected in alone["state"].items():
        assert torch.equal(first["state"][name], second["state"][name]), f"{name} differs between the ranks"
        gap = (first["state"][name].double() - expected.double()).abs().max()
        assert gap <= 5e-6, f"{name} differs from one process by {gap:.1e}"
    torch.testing.assert_close((first["kl"] + second["kl"]) / 2, alone["kl"])
    assert IMAGES % 2 == 0
