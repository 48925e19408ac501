"""Several optimisers that take turns, in every precision."""

import copy
import itertools

import pytest
import torch
from errors import refused
from torch import nn

from repae.config import UserError
from repae.runtime.optimise import AdamWConfig, Optimiser
from repae.runtime.precision import Precision
from repae.runtime.schedules import Cosine

CPU = torch.device("cpu")
MICROS = 4
TOLERANCE = {"fp32": 1e-6, "bf16": 2e-2, "fp16": 2e-3}
"""Relative error of accumulated against large-batch gradients: rounding of the forward and backward passes in the low
precision (epsilon 2^-8 and 2^-11), which split batches round differently."""


def _modules():
    torch.manual_seed(1)
    return [nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 6)) for _ in range(3)]


def _players(precision, micros, **config):
    modules = _modules()
    settings = AdamWConfig(**config)
    optimisers = [
        Optimiser(module.parameters(), settings, precision, accumulate=micros, total_steps=10) for module in modules
    ]
    return modules, optimisers


def _losses(modules, batch, precision):
    """The players' losses in turn; the first one's passes through the frozen second one, as in joint training."""
    first, second, third = modules
    with precision.autocast():
        out = first(batch)
    second.requires_grad_(False)
    with precision.autocast():
        judged = second(out)
    yield judged.float().square().mean()
    second.requires_grad_(True)
    for module in (second, third):
        with precision.autocast():
            told = module(out.detach())
        yield told.float().square().mean()


def _accumulate(name, micros, batch):
    """Unscaled gradients of the three players before clipping."""
    precision = Precision(name, CPU)
    modules, optimisers = _players(precision, micros)
    for part in batch.chunk(micros):
        for optimiser, loss in zip(optimisers, _losses(modules, part, precision)):
            optimiser.backward(loss)
    for optimiser in optimisers:
        optimiser.unscale()
        optimiser.unscale()
    return [torch.cat([p.grad.flatten() for p in module.parameters()]) for module in modules]


@pytest.mark.parametrize("name", TOLERANCE)
def test_accumulated_gradients_are_those_of_one_large_batch(name):
    """For three optimisers that take turns within every micro-batch, in every precision; unscale() counts once."""
    batch = torch.randn(4 * MICROS, 6)
    for split, whole in zip(_accumulate(name, MICROS, batch), _accumulate(name, 1, batch)):
        assert (split - whole).norm() <= TOLERANCE[name] * whole.norm()


@pytest.mark.parametrize("name", TOLERANCE)
def test_no_micro_batch_is_lost(name):
    """With the same samples in all micro-batches, each is a quarter of the gradient: losing one would show as 25%."""
    part = torch.randn(4, 6)
    for split, whole in zip(_accumulate(name, MICROS, part.repeat(MICROS, 1)), _accumulate(name, 1, part)):
        assert (split - whole).norm() <= TOLERANCE[name] * whole.norm()


def test_the_norm_comes_with_the_last_micro_batch_and_clipping_is_each_ones_own():
    """It is the norm before clipping, of the optimiser's own parameters; gradients are gone afterwards."""
    precision = Precision("fp32", CPU)
    modules, optimisers = _players(precision, 2, max_grad_norm=1e-3, lr=0.1)
    batch = torch.randn(8, 6)
    truth = [gradient.norm() for gradient in _accumulate("fp32", 2, batch)]
    norms = []
    for part in batch.chunk(2):
        losses = _losses(modules, part, precision)
        norms.append([optimiser(loss) for optimiser, loss in zip(optimisers, losses)])
    assert norms[0] == [None, None, None]
    for norm, expected in zip(norms[1][:1], truth[:1]):
        assert isinstance(norm, torch.Tensor) and torch.isclose(norm, expected, rtol=1e-6)
    assert all(p.grad is None for module in modules for p in module.parameters())
    assert [optimiser.updates for optimiser in optimisers] == [1, 1, 1]


def test_one_update_is_adamw_of_the_clipped_gradient():
    """Against torch's own optimiser and clipping, over several updates with a schedule and weight decay."""
    config = AdamWConfig(lr=0.05, weight_decay=0.1, max_grad_norm=0.5, schedule=Cosine(warmup_steps=2))
    ours, theirs = _modules()[0], _modules()[0]
    optimiser = Optimiser(ours.parameters(), config, Precision("fp32", CPU), total_steps=6)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(6):
        batch = torch.randn(4, 6)
        norm = optimiser(ours(batch).square().mean() * 100)
        reference.zero_grad()
        (theirs(batch).square().mean() * 100).backward()
        expected = nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        reference.param_groups[0]["lr"] = 0.05 * config.schedule.factor(step, 6)
        reference.step()
        assert norm is not None and torch.isclose(norm, expected, rtol=1e-5)
    for mine, other in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_without_a_limit_gradients_are_not_clipped():
    """max_grad_norm None."""
    module = nn.Linear(2, 1, bias=False)
    optimiser = Optimiser(module.parameters(), AdamWConfig(max_grad_norm=None), Precision("fp32", CPU), total_steps=1)
    norm = optimiser(module(torch.full((1, 2), 1e3)).sum())
    assert norm is not None and torch.isclose(norm, torch.tensor(1e3 * 2**0.5))


@pytest.mark.parametrize("name", TOLERANCE)
def test_an_overflow_stops_only_the_optimiser_it_happened_in(name):
    """Its weights, moments and step numbers stay, it is counted, and its loss scale falls; the others go on."""
    precision = Precision(name, CPU)
    modules, optimisers = _players(precision, 1, lr=0.1)
    for optimiser, loss in zip(optimisers, _losses(modules, torch.randn(4, 6), precision)):
        optimiser(loss)
    before = copy.deepcopy([module.state_dict() for module in modules])
    states = copy.deepcopy([optimiser.state_dict() for optimiser in optimisers])
    for index, (optimiser, loss) in enumerate(zip(optimisers, _losses(modules, torch.randn(4, 6), precision))):
        norm = optimiser(loss * float("inf") if index == 1 else loss)
        assert norm is not None and bool(norm.isfinite()) == (index != 1)
    changed = [not torch.equal(module[0].weight, old["0.weight"]) for module, old in zip(modules, before)]
    assert changed == [True, False, True]
    assert [int(optimiser.skipped) for optimiser in optimisers] == [0, 1, 0]
    new = optimisers[1].state_dict()
    for position, moments in states[1]["moments"].items():
        assert all(torch.equal(value, new["moments"][position][key]) for key, value in moments.items())
    scales = [optimiser.state_dict()["scaler"] for optimiser in optimisers]
    if name == "fp16":
        assert [state["scale"] for state in scales] == [2.0**16, 2.0**15, 2.0**16]
    else:
        assert scales == [None] * 3


def test_a_real_fp16_overflow_passes():
    """A gradient too large for float16 costs updates until the scale fits, and then training goes on."""
    precision = Precision("fp16", CPU)
    module = nn.Linear(4, 4)
    optimiser = Optimiser(module.parameters(), AdamWConfig(lr=1e-3), precision, total_steps=24)
    batch = torch.full((2, 4), 100.0)
    for _ in range(24):
        with precision.autocast():
            out = module(batch)
        optimiser(out.float().square().sum())
    assert 8 < int(optimiser.skipped) < 24
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("name", TOLERANCE)
def test_resuming_is_exact(name):
    """Moments, loss scale, schedule and counters: two updates, a new optimiser, two more, bit for bit as four."""
    precision = Precision(name, CPU)
    config = AdamWConfig(lr=0.1, schedule=Cosine())
    batches = torch.randn(4, 4, 6)

    def run(module, optimiser, steps):
        for batch in batches[steps]:
            with precision.autocast():
                out = module(batch)
            optimiser(out.float().square().mean())

    whole, halves = _modules()[0], _modules()[0]
    run(whole, Optimiser(whole.parameters(), config, precision, total_steps=4), slice(0, 4))
    first = Optimiser(halves.parameters(), config, precision, total_steps=4)
    run(halves, first, slice(0, 2))
    second = Optimiser(halves.parameters(), config, precision, total_steps=4)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert second.learning_rate == first.learning_rate < 0.1
    run(halves, second, slice(2, 4))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters()))


def test_settings_come_from_the_config_and_not_from_the_checkpoint():
    """A new weight decay that the recipe allows is not undone by loading moments."""
    module = _modules()[0]
    precision = Precision("fp32", CPU)
    old = Optimiser(module.parameters(), AdamWConfig(weight_decay=0.5), precision, total_steps=4)
    old(module(torch.ones(1, 6)).sum())
    new = Optimiser(module.parameters(), AdamWConfig(weight_decay=0.0), precision, total_steps=4)
    new.load_state_dict(old.state_dict())
    assert new._adamw.param_groups[0]["weight_decay"] == 0.0


def test_state_of_another_model_or_precision_is_refused_in_words():
    """Torch itself would load moments of any shape."""
    small, large = nn.Linear(2, 2), nn.Linear(3, 2)
    plain, scaled = Precision("fp32", CPU), Precision("fp16", CPU)
    source = Optimiser(small.parameters(), AdamWConfig(), plain, total_steps=1)
    source(small(torch.ones(1, 2)).sum())
    with refused(UserError, "parameter 0", "(2, 2)", "(2, 3)", "another model", "use the recipe"):
        Optimiser(large.parameters(), AdamWConfig(), plain, total_steps=1).load_state_dict(source.state_dict())
    with refused(UserError, "in bf16 or fp32", "is fp16", "runtime.precision"):
        Optimiser(small.parameters(), AdamWConfig(), scaled, total_steps=1).load_state_dict(source.state_dict())


def test_misuse_is_told_in_words():
    """A loss without a graph, a loss of others, a checkpoint or a backward pass in the middle."""
    module, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimiser = Optimiser(module.parameters(), AdamWConfig(), Precision("fp32", CPU), accumulate=2, total_steps=1)
    with refused(AssertionError, "no trainable parameter", "weight zero"):
        optimiser(torch.zeros(()))
    with refused(AssertionError, "float32", "torch.bfloat16"):
        optimiser(module(torch.ones(1, 2)).sum().bfloat16())
    for _ in range(2):
        optimiser.backward(other(torch.ones(1, 2)).sum())
    with refused(AssertionError, "reached none", "parameters"):
        optimiser.update()
    with refused(AssertionError, "checkpoint", "middle of an accumulation"):
        optimiser.state_dict()
    with refused(AssertionError, "micro-batches", "update() comes before", "backward()"):
        optimiser.backward(module(torch.ones(1, 2)).sum())


def test_frozen_parameters_are_left_out():
    """A fixed table among the parameters never moves, not even by weight decay."""
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    before = module.bias.clone()
    optimiser = Optimiser(
        module.parameters(), AdamWConfig(weight_decay=0.5, lr=1.0), Precision("fp32", CPU), total_steps=3
    )
    for _ in itertools.repeat(None, 3):
        optimiser(module(torch.ones(1, 2)).sum())
    assert torch.equal(module.bias, before)
