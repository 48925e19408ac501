"""Learning-rate schedules."""

import math

import pytest
import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.config import UserError
from repae.runtime.optimise import AdamWConfig
from repae.runtime.schedules import Constant, Cosine, OneCycle, Until

ALL = [
    Constant(),
    Constant(warmup_steps=7),
    Cosine(),
    Cosine(warmup_steps=5, final=0.1),
    OneCycle(),
    OneCycle(rise=0.0),
    Until(stop=5),
    Until(stop=50, fall_steps=20),
]


@pytest.mark.parametrize("schedule", ALL)
@given(step=st.integers(0, 200), total=st.integers(1, 100))
def test_factors_are_fractions(schedule, step, total):
    """Never negative, never more than the learning rate itself, also beyond the end and in the shortest runs."""
    assert 0.0 <= schedule.factor(step, total) <= 1.0


def test_constant():
    """A warm-up that starts above zero and ends at the learning rate; total steps do not matter."""
    assert [Constant(warmup_steps=4).factor(step, 10) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert not Constant(warmup_steps=4).depends_on_total
    assert Constant(warmup_steps=4).factor(2, 10) == Constant(warmup_steps=4).factor(2, 1000)


def test_cosine():
    """From the learning rate to its final fraction, half of the way in the middle; it stays there."""
    schedule = Cosine(final=0.2)
    assert schedule.factor(0, 11) == 1.0
    assert math.isclose(schedule.factor(5, 11), 0.6)
    assert schedule.factor(10, 11) == schedule.factor(99, 11) == 0.2
    assert schedule.depends_on_total
    warm = Cosine(warmup_steps=3)
    assert [warm.factor(step, 14) for step in range(4)] == [1 / 3, 2 / 3, 1.0, 1.0]


def _torch_factors(total, **options):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=total, **options)
    for step in range(total):
        yield schedule.get_last_lr()[0]
        if step < total - 1:
            optimiser.step()
            schedule.step()


@pytest.mark.parametrize("total", [7, 40])
def test_one_cycle_is_torchs(total):
    """Step by step the values of torch's own schedule, default and other shapes."""
    ours = [OneCycle().factor(step, total) for step in range(total)]
    assert ours == pytest.approx(list(_torch_factors(total)), abs=1e-12)
    other = OneCycle(rise=0.5, start_divisor=10, end_divisor=100)
    ours = [other.factor(step, total) for step in range(total)]
    reference = _torch_factors(total, pct_start=0.5, div_factor=10, final_div_factor=100)
    assert ours == pytest.approx(list(reference), abs=1e-12)


def test_a_schedule_is_chosen_by_its_kind():
    """As a recipe writes it; a wrong name is refused in words."""
    assert AdamWConfig(schedule={"kind": "cosine", "final": 0.5}).schedule == Cosine(final=0.5)  # type: ignore[arg-type]
    with refused(UserError, "schedule.kind is 'linear'", "'constant', 'cosine', 'one-cycle'"):
        AdamWConfig(schedule={"kind": "linear"})  # type: ignore[arg-type]


def test_until():
    """A weight ends at its step and stays at exactly nothing; it falls before that only where it is told to."""
    assert [Until(stop=3).factor(step, 100) for step in range(5)] == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert [Until(stop=4, fall_steps=3).factor(step, 9) for step in range(6)] == [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    assert not Until(stop=3).depends_on_total
    with refused(UserError, "fall_steps 4", "stop 3", "at most stop"):
        Until(stop=3, fall_steps=4)
