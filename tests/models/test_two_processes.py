"""Networks in two processes with half of the batch each, against one process with all of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from processes import run_processes
from torch import Tensor

from repae.models import ActNorm, Denoiser, GlobalBatchNorm2d, LatentNorm, SiT, SiTConfig
from repae.runtime.distributed import world
from repae.runtime.parallel import ParallelPlan, parallelise

CPU = torch.device("cpu")
SMALL = SiTConfig(input_size=4, in_channels=3, hidden_size=24, depth=2, num_heads=3, num_classes=5)


def mine(whole: Tensor) -> Tensor:
    """This process's half of a batch."""
    return whole.chunk(world().size)[world().rank]


def batch() -> Tensor:
    source = torch.Generator().manual_seed(1)
    return torch.randn(8, 3, 4, 4, generator=source) * torch.linspace(0.1, 4, 3)[:, None, None] + 2


def normalised(norm: torch.nn.Module) -> dict[str, Any]:
    """One training batch: values, gradient of a mean over this process's part, state afterwards."""
    z = mine(batch()).clone().requires_grad_(True)
    out = norm.train()(z)
    (out**3 * mine(torch.linspace(0, 1, 8))[:, None, None, None]).mean().backward()
    return {"out": out.detach(), "grad": z.grad / world().size, "state": dict(norm.state_dict())}


def refused() -> list[Tensor]:
    """A batch with a NaN that only the last process sees."""
    norm, z = LatentNorm(3).train(), mine(batch()).clone()
    if world().rank == world().size - 1:
        z[0, 0, 0, 0] = float("nan")
    norm(z)
    return [norm.running_mean, norm.running_var, norm.num_batches_tracked, norm.refused]


def denoised() -> dict[str, Tensor]:
    """Gradients of all parameters after a training pass through data parallelism."""
    torch.manual_seed(0)
    denoiser = Denoiser(SiT(SMALL), [6], 1, 16)
    for parameter in denoiser.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    wrapped = parallelise(denoiser.train(), ParallelPlan(CPU))
    t, y, drop = torch.linspace(0, 1, 8), torch.arange(8) % 5, torch.arange(8) % 3 == 0
    velocity, projected = wrapped(mine(batch()), mine(t), mine(y), mine(drop))
    (velocity.square().mean() + projected[0].square().mean()).backward()
    return {name: parameter.grad for name, parameter in denoiser.named_parameters()}


def work() -> dict[str, Any]:
    torch.manual_seed(0)
    norms = {"latent": LatentNorm(3), "batch": GlobalBatchNorm2d(3), "act": ActNorm(3)}
    torch.nn.init.normal_(norms["batch"].weight)
    return {name: normalised(norm) for name, norm in norms.items()} | {"refused": refused(), "denoiser": denoised()}


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return work(), run_processes(work)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["latent", "batch", "act"])
def test_norms_are_global(results, name):
    """Values, gradients and what was learnt from the batch are those of the whole batch; alike on both processes."""
    alone, pair = results
    for key in ("out", "grad"):
        torch.testing.assert_close(torch.cat([result[name][key] for result in pair]), alone[name][key])
    for key, value in alone[name]["state"].items():
        torch.testing.assert_close(pair[0][name]["state"][key], value)
        assert torch.equal(pair[0][name]["state"][key], pair[1][name]["state"][key])


@pytest.mark.slow
def test_one_bad_process_makes_all_refuse(results):
    """The running statistics keep their values on both, and both count."""
    for result in results[1]:
        mean, variance, tracked, refusals = result["refused"]
        assert not mean.any() and (variance == 1).all() and tracked == 0 and refusals == 1


@pytest.mark.slow
def test_gradients_of_the_denoiser_are_averaged(results):
    """Every parameter takes part in the forward pass, and its gradient is that of the whole batch."""
    alone, pair = results
    for name, gradient in alone["denoiser"].items():
        torch.testing.assert_close(pair[0]["denoiser"][name], gradient, rtol=1e-4, atol=1e-6)
        assert torch.equal(pair[0]["denoiser"][name], pair[1]["denoiser"][name])
