"""Generators by key, and shares of the global batch."""

import pytest
import torch
from errors import refused
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.config import UserError
from repae.runtime.seeds import Share, generator, seed_of

CPU = torch.device("cpu")


def test_the_key_decides():
    """The same key gives the same numbers at any time, another one others; its parts do not run together."""
    draw = [torch.randn(8, generator=generator(CPU, 3, "step", 17)) for _ in range(2)]
    assert torch.equal(*draw)
    keys = [(3, "step", 17), (3, "step", 18), (4, "step", 17), (31, "step", 7), (3, "step1", 7), ("3", "step", 17)]
    assert len({seed_of(*key) for key in keys}) == len(keys)


def test_the_seed_never_changes():
    """Runs begun with an earlier version go on with the same numbers."""
    assert seed_of(0, "step", 0) == 0x5936E23493EB8881


@settings(deadline=None)
@given(size=st.integers(1, 5), micros=st.integers(1, 5), share=st.integers(1, 4))
def test_shares_make_up_the_global_batch_in_order(size, micros, share):
    """Micro-batch by micro-batch and rank by rank, every sample once: one process and several see the same batches."""
    batch = torch.arange(size * micros * share)
    shares = [Share(micro, micros, rank, size) for micro in range(micros) for rank in range(size)]
    assert torch.equal(torch.cat([part.of(batch) for part in shares]), batch)
    for part in shares:
        assert torch.equal(batch[part.positions(len(batch))], part.of(batch))
        length = len(batch) // micros
        assert all(sample // length == part.micro for sample in part.of(batch).tolist())


def test_a_batch_that_cannot_be_divided_is_refused():
    """With the multiple that is needed."""
    with refused(UserError, "batch of 10", "3 micro-batches", "2 processes", "a multiple of 6"):
        Share(0, 3, 0, 2).positions(10)
    with refused(UserError, "batch of 3", "1 micro-batches", "2 processes", "a multiple of 2"):
        Share(0, 1, 0, 2).of(torch.zeros(3, 2))


def test_an_impossible_share_is_our_own_mistake():
    """Ranks and micro-batches count from 0."""
    with pytest.raises(AssertionError):
        Share(2, 2, 0, 1)
