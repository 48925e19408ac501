"""Two processes at half the batch each train as one process does, statistics of the batch included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from players import IMAGES, batch, setup, step
from processes import run_processes

from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.distributed import world
from repae.runtime.parallel import unwrap
from repae.runtime.precision import Precision
from repae.runtime.schedules import Until
from repae.runtime.seeds import Share
from repae.training.loop import BestConfig, Loop, LoopConfig
from repae.training.methods import RepaE

STEPS = 3


class Told:
    """A hook of which the main process alone knows the figure, as an evaluation is: the best is in the middle."""

    every = 1

    def __call__(self, step: int) -> dict[str, float]:
        return {"eval_fd": [3.0, 1.0, 2.0][step - 1]} if world().rank == 0 else {}


def choose_the_best(folder: str) -> dict[str, Any]:
    """Three steps of nothing, a checkpoint wherever the figure is the best so far; what this process takes for it."""
    config = LoopConfig(steps=3, batch_size=2, checkpoint_every=100, best=BestConfig(metric="eval_fd"))
    store, cpu = CheckpointStore(folder), torch.device("cpu")
    loop = Loop(
        Nothing(), lambda start: iter([batch(0)] * 3), config, store, meta={}, precision=Precision("fp32", cpu),
        device=cpu, images=8, hooks=[Told()],
    )  # fmt: skip
    assert loop.run().finished
    best = store.best()
    assert best is not None
    return {"value": loop._record.value, "step": best.step, "metric": dict(best.metric)}


class Nothing:
    """A step that trains nothing."""

    def __call__(self, batch: Any, step: int, share: Share) -> dict[str, torch.Tensor]:
        return {"loss": torch.zeros(())}

    def parts(self) -> dict[str, Any]:
        return {}

    def modules(self) -> list[torch.nn.Module]:
        return []


@pytest.mark.slow
def test_processes_agree_on_the_best_checkpoint(tmp_path: Path) -> None:
    """A figure that the main process found decides on all of them, or some would wait for others for ever."""
    expected = {"value": 1.0, "step": 2, "metric": {"eval_fd": 1.0}}
    assert run_processes(choose_the_best, str(tmp_path), size=2) == [expected, expected]


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
