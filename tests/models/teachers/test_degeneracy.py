"""The figures of a teacher, held against tokens for which they are known beforehand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from repae.models.teachers.degeneracy import degeneracy, describe

LABELS = torch.arange(60) % 3


def parts(place: float, image: float, rest: float) -> torch.Tensor:
    """Tokens made of independent parts with the given standard deviations."""
    draw = torch.Generator().manual_seed(0)
    return (
        place * torch.randn(1, 25, 32, generator=draw)
        + image * torch.randn(60, 1, 32, generator=draw)
        + rest * torch.randn(60, 25, 32, generator=draw)
    )


@settings(max_examples=5)
@given(st.floats(0.1, 2), st.floats(0.1, 2), st.floats(0.1, 2))
def test_shares_are_those_of_the_parts(place: float, image: float, rest: float) -> None:
    """A sum of independent parts is taken apart again, up to the finite numbers of images and places."""
    figures = degeneracy(parts(place, image, rest), LABELS)
    total = place**2 + image**2 + rest**2
    assert figures["position_share"] == pytest.approx(place**2 / total, abs=0.08)
    assert figures["image_share"] == pytest.approx(image**2 / total, abs=0.08)


def test_the_cosine_is_the_mean_over_all_pairs_of_images() -> None:
    """Computed from sums, equal to the loop over pairs of tokens from different images."""
    tokens = parts(1, 1, 1)[:5, :3] + 0.5
    units = F.normalize(tokens, dim=-1)
    pairs = [float((units[i] @ units[j].T).mean()) for i in range(5) for j in range(5) if i != j]
    assert degeneracy(tokens, LABELS[:5])["random_cosine"] == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)


def test_centring_is_reported_before_and_after() -> None:
    """With the position mean subtracted the position share is 0 and the raw figures are those of the sum."""
    tokens = parts(2, 1, 1)
    centre = tokens.mean(0)
    figures = degeneracy(tokens - centre, LABELS, centre)
    assert figures["position_share"] == pytest.approx(0, abs=1e-10)
    raw = degeneracy(tokens, LABELS)
    for name in ("random_cosine", "position_share", "image_share"):
        assert figures[f"{name}_raw"] == pytest.approx(raw[name], rel=1e-4)
    assert figures["random_cosine"] < figures["random_cosine_raw"]


def test_a_constant_teacher_is_unmasked() -> None:
    """One token for everything: cosine 1, and a probe that knows no better than chance."""
    figures = degeneracy(torch.ones(60, 4, 8) + 1e-3 * torch.randn(60, 4, 8), LABELS)
    assert figures["random_cosine"] > 0.999
    assert figures["probe_accuracy"] < 0.8


def test_a_teacher_that_knows_the_classes_scores() -> None:
    """Mean tokens that are separable by class: probe, neighbour and label cosine near 1."""
    classes = 10 * torch.eye(3, 8)[LABELS][:, None] + 0.1 * torch.randn(60, 4, 8)
    figures = degeneracy(classes, LABELS)
    assert figures["probe_accuracy"] == 1
    assert figures["neighbour_accuracy"] == 1
    assert figures["label_cosine"] > 0.99


def test_the_nearest_neighbour_is_never_the_image_itself() -> None:
    """Twins with different labels: leave-one-out finds the twin and is always wrong."""
    tokens = torch.randn(30, 2, 8).repeat_interleave(2, 0)
    assert degeneracy(tokens, torch.arange(60) % 2)["neighbour_accuracy"] == 0


def test_the_figures_are_the_same_each_time() -> None:
    """A fixed split: two runs of one teacher can be compared."""
    tokens = parts(1, 1, 1)
    assert degeneracy(tokens, LABELS) == degeneracy(tokens, LABELS)


def test_what_cannot_be_known_is_not_invented() -> None:
    """One class has no probe, one image no neighbour; the table says so in words."""
    assert math.isnan(degeneracy(parts(1, 1, 1), torch.zeros(60, dtype=torch.int64))["probe_accuracy"])
    lonely = degeneracy(parts(1, 1, 1)[:1], LABELS[:1])
    assert math.isnan(lonely["neighbour_accuracy"])
    assert math.isnan(lonely["random_cosine"])
    assert "not known" in describe(lonely)


def test_the_table_is_one_line_a_figure() -> None:
    """In words, the figures before centring beside those after it."""
    tokens = parts(2, 1, 1)
    lines = describe(degeneracy(tokens - tokens.mean(0), LABELS, tokens.mean(0))).splitlines()
    assert len(lines) == 6
    assert sum("before centring" in line for line in lines) == 3
    assert lines[1].startswith("share of token variance that is the place in the image")
    assert "  0.000  (" in lines[1]
