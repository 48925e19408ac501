"""Feature maps of teachers, for a perceptual distance: the tokens as a map, differentiable in the images."""

from __future__ import annotations

import pytest
import torch

from repae.losses.perceptual import feature_distance
from repae.models.pixels import to_symmetric
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig


@pytest.fixture(scope="module")
def teacher() -> TimmTeacher:
    """A small transformer with random weights."""
    torch.manual_seed(0)
    return TimmTeacher(TimmTeacherConfig(name="test_vit"), load=False)


@pytest.mark.parametrize("channels", [1, 3])
@torch.no_grad()
def test_the_map_is_the_tokens(teacher: TimmTeacher, channels: int) -> None:
    """What the alignment sees of levels 0..255, the perceptual distance sees of the same images in [-1, 1]; the places
    of the map are those of the tokens."""
    images = torch.randint(0, 256, (2, channels, 64, 64), dtype=torch.uint8)
    (found,) = teacher.features(to_symmetric(images))
    side = found.shape[-1]
    assert found.shape == (2, teacher.dim, side, side) and side**2 == teacher.tokens(64)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), teacher(images), rtol=1e-4, atol=1e-4)


def test_a_reconstruction_hears_of_it(teacher: TimmTeacher) -> None:
    """Through the resizing too, and beyond the range of images; the teacher itself learns nothing."""
    small = TimmTeacher(TimmTeacherConfig(name="test_vit", grid=3), load=False)
    real = torch.rand(2, 3, 64, 64) * 2 - 1
    for network in (teacher, small):
        ours = (real * 1.5).requires_grad_()
        distance = feature_distance(network.features, ours, real)
        distance.backward()
        assert distance > 0 and ours.grad is not None and (ours.grad[ours.abs() > 1] != 0).any()
        assert all(parameter.grad is None for parameter in network.parameters())
        assert feature_distance(network.features, real, real) == 0
