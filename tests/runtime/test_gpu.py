"""What only a CUDA device can show."""

import pytest
import torch
from stacks import Layers
from torch import nn

from repae.runtime.device import pick_device
from repae.runtime.distributed import all_true, global_moments
from repae.runtime.ema import EMA, EmaConfig
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.parallel import ParallelPlan, parallelise
from repae.runtime.precision import Precision, float32

pytestmark = pytest.mark.gpu


@pytest.fixture
def no_waiting():
    """Any wait of the host for the device is an error."""
    yield lambda: torch.cuda.set_sync_debug_mode("error")
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_never_waits_for_the_device(name, compiled, no_waiting):
    """Forward, backward, unscaling, clipping, step, a refused step, averages and global statistics."""
    device = pick_device("cuda")
    precision = Precision(name, device)
    layers = Layers(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).to(device)
    module = parallelise(layers, ParallelPlan(device, compile=compiled))
    optimiser = Optimiser(module.parameters(), AdamWConfig(lr=1e-2), precision, accumulate=2, total_steps=20)
    ema = EMA(module, EmaConfig(warmup=True))
    batch = torch.randn(16, 8, device=device)

    def step(factor):
        for part in batch.chunk(2):
            with precision.autocast():
                out = module(part)
                with float32():
                    mean, variance, _ = global_moments(out, 0)
                    loss = (out.float() - mean).square().mean() + variance.mean()
            norm = optimiser(loss * factor)
        ema.update()
        return norm, all_true(norm.isfinite())

    for _ in range(2):
        step(1.0)
    before = [parameter.clone() for parameter in module.parameters()]
    no_waiting()
    refused, finite = step(float("inf"))
    unchanged = torch.stack([(a == b).all() for a, b in zip(module.parameters(), before)]).all()
    for _ in range(3):
        step(1.0)
    torch.cuda.set_sync_debug_mode("default")
    assert not refused.isfinite() and not finite and unchanged
    assert optimiser.skipped == 1
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_gpu_and_cpu_take_the_same_steps():
    """In float32, to rounding."""
    results = []
    for device in (torch.device("cpu"), pick_device("cuda")):
        torch.manual_seed(0)
        module = nn.Linear(4, 4).to(device)
        optimiser = Optimiser(
            module.parameters(), AdamWConfig(lr=0.1, eps=1e-4), Precision("fp32", device), total_steps=9
        )
        batch = torch.linspace(-1, 1, 32).reshape(8, 4).to(device)
        for _ in range(5):
            optimiser(module(batch).square().mean())
        results.append(module.weight.detach().cpu())
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
