"""Moving averages."""

import copy

import pytest
import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from repae.config import UserError
from repae.runtime.ema import EMA, EmaConfig, short_run_warning


def _module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


@given(value=st.floats(-(2.0**100), 2.0**100, width=32), decay=st.floats(0, 0.9999))
def test_a_constant_does_not_drift(value, decay):
    """Not by a bit, at any decay: e * d + p * (1 - d) would lose a digit in thousands of updates."""
    module = nn.Linear(2, 2)
    nn.init.constant_(module.weight, value)
    ema = EMA(module, EmaConfig(decay=decay))
    for _ in range(50):
        ema.update()
    assert torch.equal(ema.module.weight, module.weight)


def test_it_is_the_weighted_mean_of_the_past():
    """Closed form: decay^n of the start, and the rest in falling weights."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 2.0)
    ema = EMA(module, EmaConfig(decay=0.9))
    expected = 2.0
    for value in range(10):
        nn.init.constant_(module.weight, float(value))
        ema.update()
        expected = 0.9 * expected + 0.1 * value
    assert ema.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert ema.count == 10


def test_warm_up_starts_with_a_short_memory():
    """(1 + n) / (10 + n) until that reaches the decay."""
    ema = EMA(nn.Linear(1, 1), EmaConfig(decay=0.5, warmup=True))
    seen = []
    for _ in range(10):
        seen.append(ema.decay)
        ema.update()
    assert seen == [min(0.5, (1 + n) / (10 + n)) for n in range(10)]
    assert seen[0] == 0.1 and seen[-1] == 0.5


def test_decay_zero_copies_even_what_is_not_finite():
    """Interpolating from infinity would give NaN."""
    module = nn.Linear(1, 1)
    ema = EMA(module, EmaConfig(decay=0.0))
    nn.init.constant_(ema.module.weight, float("inf"))
    ema.update()
    assert torch.equal(ema.module.weight, module.weight)


@pytest.mark.parametrize("buffers", ["average", "copy"])
def test_floating_buffers_are_averaged_or_copied_and_integers_copied(buffers):
    """Running statistics either way; a count of batches has no average."""
    module = _module()
    ema = EMA(module, EmaConfig(decay=0.9), buffers=buffers)
    module(torch.randn(8, 3) + 5)
    ema.update()
    live, mine = module[1].running_mean, ema.module[1].running_mean
    torch.testing.assert_close(mine, live * 0.1 if buffers == "average" else live)
    assert ema.module[1].num_batches_tracked == module[1].num_batches_tracked == 1


def test_the_average_takes_no_part_in_training():
    """Eval mode, no gradients, its own memory; the live module is as it was."""
    module = _module()
    ema = EMA(module, EmaConfig())
    assert not ema.module.training and module.training
    assert not any(parameter.requires_grad for parameter in ema.module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    nn.init.zeros_(module[0].weight)
    assert ema.module[0].weight.abs().sum() > 0


def test_names_are_those_of_the_bare_module_when_compiled():
    """Compilation in place leaves no trace in the names or in the copy."""
    module = _module()
    module[0].compile(backend="eager")
    module.compile(backend="eager")
    ema = EMA(module, EmaConfig())
    assert list(ema.module.state_dict()) == list(_module().state_dict())
    assert ema.module._compiled_call_impl is None
    ema.update()


def test_resuming_is_exact():
    """The average and the place in the warm-up."""
    module = _module()
    first = EMA(module, EmaConfig(warmup=True))
    for _ in range(3):
        nn.init.normal_(module[0].weight)
        first.update()
    second = EMA(module, EmaConfig(warmup=True))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for ema in (first, second):
        ema.update()
    for key, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[key])


def test_short_runs_are_warned_of():
    """Less than three memories without warm-up; the advice given is enough."""
    text = short_run_warning(EmaConfig(decay=0.9999), 1000)
    assert text is not None and "still 90% initial weights" in text and "at most 0.997" in text
    assert short_run_warning(EmaConfig(decay=0.997), 1000) is None
    assert short_run_warning(EmaConfig(decay=0.9999, warmup=True), 1000) is None
    assert short_run_warning(EmaConfig(decay=0.9999), 30_000) is None


@given(steps=st.integers(1, 10**6), decay=st.floats(0.0, 0.999999))
def test_the_advice_against_short_runs_is_enough(steps, decay):
    """Whoever takes the decay that the warning names is not warned again."""
    text = short_run_warning(EmaConfig(decay=decay), steps)
    if text is not None and steps > 3:
        advice = float(text.split("at most ")[1].split(",")[0])
        assert advice < decay
        assert short_run_warning(EmaConfig(decay=advice), steps) is None


def test_a_decay_of_one_is_refused():
    """It would never move."""
    with refused(UserError, "decay", 1.0, "less than 1"):
        EmaConfig(decay=1.0)
