from __future__ import annotations

import numpy as np
import pytest
import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.config import UserError
from repae.flow import Autoguidance, DormandPrince, Euler, EulerMaruyama, LinearPath
from repae.runtime.distributed import World
from repae.runtime.precision import Precision
from repae.sampling import NpzOutput, draw, generate, missing_batches

ALONE = World(0, 1, 0)
FP32 = Precision("fp32", torch.device("cpu"))


@given(
    st.integers(0, 20),
    st.integers(0, 60),
    st.integers(1, 20),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 79), st.integers(1, 9)), max_size=4),
)
def test_all_that_is_missing_is_drawn_once(first, count, size, processes, there):
    """By any number of processes, whatever is there: batches are those of the undivided list."""
    numbers, present = range(first, first + count), [range(start, start + length) for start, length in there]
    drawn = [
        batch
        for rank in range(processes)
        for batch in missing_batches(numbers, present, size, World(rank, processes, rank))
    ]
    whole = missing_batches(numbers, [], size, ALONE)
    assert [number for batch in whole for number in batch] == list(numbers)
    assert sorted(drawn, key=lambda batch: batch.start) == missing_batches(numbers, present, size, ALONE)
    assert all(batch in whole for batch in drawn)
    known = {number for found in present for number in found}
    assert {number for batch in drawn for number in batch} | known >= set(numbers)
    assert all(not known.issuperset(batch) for batch in drawn)


class Source:
    latent_shape = (3, 4, 4)
    null_label = None

    def __init__(self, gain=1.0):
        self.gain = gain

    def velocity(self, x, t, y):
        return self.gain * x * t[:, None, None, None] + y[:, None, None, None] / 10

    def decode(self, x):
        return (x * 40 + 128).clamp(0, 255).to(torch.uint8)


LABELS = torch.arange(20) % 10


@pytest.mark.parametrize("sampler", [EulerMaruyama(steps=4), DormandPrince()], ids=lambda sampler: sampler.kind)
@pytest.mark.parametrize("batches", [[range(8), range(16, 20), range(8, 16)], [range(20)]], ids=["beside", "at once"])
def test_the_list_is_that_of_generate(sampler, batches, tmp_path):
    """In one batch, or in several written by a process beside: the same images, counted as the network saw them."""
    output, rest = NpzOutput(tmp_path, 20), {"sampler": sampler, "path": LinearPath(), "precision": FP32, "seed": 5}
    drawn = draw(Source(), LABELS, batches, output, **rest)
    output.finish(LABELS.numpy())
    expected = generate(Source(), LABELS, **rest)
    assert np.array_equal(np.load(output.path)["arr_0"], expected.permute(0, 2, 3, 1))
    assert drawn.images == 20 and drawn.seconds > 0
    assert drawn.evaluations == 20 * (sampler.evaluations or 0) or sampler.evaluations is None


def test_autoguidance_needs_both_networks(tmp_path):
    """v = weak + 2 (v - weak) is the velocity of twice the gain less the weaker's, and both evaluations are counted."""
    rest = {"sampler": Euler(steps=3), "path": LinearPath(), "precision": FP32}
    output, guidance = NpzOutput(tmp_path, 20), Autoguidance(scale=2.0)
    drawn = draw(Source(0.8), LABELS, [range(20)], output, guidance=guidance, weak=Source(0.6), **rest)
    expected = generate(Source(1.0), LABELS, **rest)
    found = torch.from_numpy(output.take(20)).permute(0, 3, 1, 2)
    assert int((found.int() - expected.int()).abs().max()) <= 1
    assert drawn.evaluations == 20 * 3 * 2


def test_a_full_disk_is_said_in_words(tmp_path):
    """Not a traceback from a process beside."""
    (tmp_path / "shards").write_text("in the way")
    with refused(UserError, tmp_path, "File exists", "same command again"):
        draw(Source(), LABELS, [range(20)], NpzOutput(tmp_path, 20), sampler=Euler(), path=LinearPath(), precision=FP32)
