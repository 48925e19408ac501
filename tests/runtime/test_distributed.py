"""What several processes compute together, against one process that holds the whole batch."""

import pytest
import torch
from errors import refused
from processes import run_processes
from stacks import Layers
from torch import nn

from repae.config import UserError
from repae.runtime import distributed
from repae.runtime.distributed import World, all_reduce_mean, all_reduce_sum, all_true, global_moments
from repae.runtime.ema import EMA, EmaConfig
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.parallel import ParallelPlan, parallelise, synchronise, unwrap
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share

CPU = torch.device("cpu")


def _batch(offset=1.0):
    return torch.randn(8, 3, 5, generator=torch.Generator().manual_seed(5)) * 2 + offset


def _moments(batch):
    """A loss of the batch's normalised values, as batch statistics enter it, with the gradient of this part."""
    batch = batch.clone().requires_grad_(True)
    mean, variance, count = global_moments(batch, (0, 2))
    normal = (batch - mean[:, None]) / (variance[:, None] + 1e-3).sqrt()
    loss = (normal.exp() + normal.square() * torch.linspace(0, 1, 5)).mean() + mean.square().sum() * 1e-4
    loss.backward()
    return {"mean": mean.detach(), "variance": variance.detach(), "count": count, "gradient": batch.grad}


def _second_derivative(batch):
    """Of the sum over all of the fourth power of the sum over all."""
    batch = batch.clone().requires_grad_(True)
    total = all_reduce_sum(batch.mean() * 1e-2) ** 4
    (first,) = torch.autograd.grad(total, batch, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), batch)
    return second


def _train(share_of):
    """Four updates of two micro-batches each; the module is frozen and judged with in between, as in joint training."""
    torch.manual_seed(distributed.world().rank)
    module = parallelise(Layers(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), ParallelPlan(CPU))
    if distributed.world().size == 1:
        torch.manual_seed(0)
    optimiser = Optimiser(
        module.parameters(), AdamWConfig(lr=0.05, eps=1e-4), Precision("fp32", CPU), accumulate=2, total_steps=4
    )
    ema = EMA(module, EmaConfig(decay=0.5))
    data = torch.randn(4, 8, 3, generator=torch.Generator().manual_seed(3))
    norms = []
    for step in range(4):
        for micro in range(2):
            part = share_of(micro).of(data[step])
            synchronise([module], on=micro == 1)
            unwrap(module).requires_grad_(False)
            source = part.clone().requires_grad_(True)
            unwrap(module)(source).sum().backward()
            unwrap(module).requires_grad_(True)
            norm = optimiser(module(part + 0 * source.grad).square().mean())
            synchronise([module], on=True)
        assert norm is not None
        norms.append(norm)
        ema.update()
    return {
        "names": list(ema.state_dict()["module"]),
        "weights": torch.cat([parameter.detach().flatten() for parameter in module.parameters()]),
        "average": torch.cat([parameter.flatten() for parameter in ema.module.parameters()]),
        "norms": torch.stack(norms),
        "wrapped": module is not unwrap(module),
    }


def work():
    """Everything that the two processes compute, in one start of them."""
    rank, size, _ = world = distributed.world()
    batch = _batch().chunk(size)[rank]
    number = torch.tensor([float(rank + 1)])
    frozen = Layers(nn.Linear(2, 2)).requires_grad_(False)
    return {
        "world": tuple(world),
        "main": distributed.is_main(),
        "sum": all_reduce_sum(number),
        "mean": all_reduce_mean(number),
        "input": number,
        "all_true": all_true(torch.tensor([True, rank == 0])),
        "every": (distributed.every_process(True), distributed.every_process(rank == 0)),
        "any": (distributed.any_process(rank == 1), distributed.any_process(False)),
        "moments": _moments(batch),
        "far": _moments(_batch(100.0).chunk(size)[rank]),
        "second": _second_derivative(batch),
        "trained": _train(lambda micro: Share(micro, 2, rank, size)),
        "frozen_is_wrapped": parallelise(frozen, ParallelPlan(CPU)) is not frozen,
    }


@pytest.fixture(scope="module")
def pair():
    """The results of two processes that torchrun started."""
    return run_processes(work, launcher="torchrun")


@pytest.mark.slow
def test_the_processes_know_each_other(pair):
    """Rank, number and local rank as torchrun sets them; one of them is the main one."""
    assert [result["world"] for result in pair] == [(0, 2, 0), (1, 2, 1)]
    assert [result["main"] for result in pair] == [True, False]


@pytest.mark.slow
def test_sums_means_and_verdicts_are_the_same_on_both(pair):
    """And the inputs are left as they were."""
    for rank, result in enumerate(pair):
        assert result["sum"] == 3 and result["mean"] == 1.5 and result["input"] == rank + 1
        assert result["all_true"].tolist() == [True, False]
        assert result["every"] == (True, False) and result["any"] == (True, False)


@pytest.mark.slow
def test_batch_statistics_of_a_divided_batch(pair):
    """Values and gradients of the whole batch to 1e-6; values also where the mean is fifty deviations from zero."""
    for key, offset in (("moments", 1.0), ("far", 100.0)):
        whole = _moments(_batch(offset))
        for result in pair:
            assert result[key]["count"] == whole["count"] == 40
            torch.testing.assert_close(result[key]["mean"], whole["mean"], rtol=1e-6, atol=0)
            torch.testing.assert_close(result[key]["variance"], whole["variance"], rtol=1e-6, atol=0)
    whole = _moments(_batch())
    # A mean over half of the batch is twice its part of the whole mean; data parallelism divides by 2 again.
    gradient = torch.cat([result["moments"]["gradient"] for result in pair]) / 2
    torch.testing.assert_close(gradient, whole["gradient"], rtol=1e-6, atol=1e-6 * whole["gradient"].abs().max().item())


@pytest.mark.slow
def test_sums_are_differentiable_twice(pair):
    """Each process's loss counts: the second derivative of size identical losses of the whole."""
    batch = _batch().clone().requires_grad_(True)
    halves = batch.chunk(2)
    total = 2 * ((halves[0].mean() + halves[1].mean()) * 1e-2) ** 4
    (first,) = torch.autograd.grad(total, batch, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), batch)
    torch.testing.assert_close(torch.cat([result["second"] for result in pair]), second, rtol=1e-5, atol=0)


@pytest.mark.slow
def test_two_processes_train_as_one(pair):
    """With micro-batches, exchange at the last one only, and a frozen pass in between; both end bit-equal."""
    alone = _train(lambda micro: Share(micro, 2, 0, 1))
    first, second = (result["trained"] for result in pair)
    for key in ("weights", "average", "norms"):
        assert torch.equal(first[key], second[key])
        torch.testing.assert_close(first[key], alone[key], rtol=1e-5, atol=1e-6)
    assert first["wrapped"] and not alone["wrapped"]
    assert first["names"] == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert not pair[0]["frozen_is_wrapped"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["accelerate", "slurm"])
def test_other_launchers_will_do(launcher):
    """Each only sets the environment."""
    results = run_processes(meet, launcher=launcher)
    assert results == [((0, 2, 0), 1.0), ((1, 2, 1), 1.0)]


def meet():
    """Who we are, and that the other one is there."""
    rank = distributed.world().rank
    return tuple(distributed.world()), all_reduce_sum(torch.tensor(float(rank))).item()


def test_alone_everything_is_the_identity():
    """No process group is needed, and nothing is copied."""
    assert distributed.start(CPU) == distributed.world() == World(0, 1, 0)
    number, flag = torch.ones(2, requires_grad=True), torch.tensor([True, False])
    assert all_reduce_sum(number) is number and all_reduce_mean(number) is number and all_true(flag) is flag
    assert distributed.is_main() and distributed.every_process(True) and not distributed.any_process(False)
    distributed.barrier()
    distributed.stop()


def test_global_moments_of_one_process_are_torchs():
    """Mean and biased variance over the given dimensions; half precision is widened."""
    batch = torch.randn(6, 3, 4, dtype=torch.float64)
    for dims in (0, (0, 2), (0, 1, 2), (-1,)):
        variance, mean = torch.var_mean(batch, dims, correction=0)
        ours = global_moments(batch, dims)
        torch.testing.assert_close(ours[:2], (mean, variance))
        assert ours[2] == batch.numel() // mean.numel()
    assert global_moments(batch.bfloat16(), 0)[0].dtype == torch.float32


def test_a_world_of_one_needs_no_processes(monkeypatch):
    """torchrun with one process."""
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert distributed.start(CPU) == World(0, 1, 0)


def test_half_an_environment_is_refused_before_anything_waits(monkeypatch):
    """In words."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with refused(UserError, "set WORLD_SIZE", "missing RANK, LOCAL_RANK", "`torchrun`", "`srun`"):
        distributed.start(CPU)
