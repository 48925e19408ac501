"""Projectors: the convolutional one sees neighbours on the grid and nothing else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from errors import refused

from repae.config import UserError
from repae.models import Denoiser, LatentNorm, SiT, SiTConfig
from repae.models.projector import ConvProjectorConfig, MLPProjectorConfig
from repae.models.reference_keys import sit_to_reference


def test_a_convolution_over_the_grid_of_tokens() -> None:
    """Row by row in and out, zeros outside: each token and its eight neighbours, by hand."""
    projector = ConvProjectorConfig().build(6, 99, 5)
    given = torch.randn(2, 16, 6)
    made = projector(given)
    weight = projector.conv.weight
    padded = F.pad(given.unflatten(1, (4, 4)), (0, 0, 1, 1, 1, 1))
    for place in range(16):
        row, column = divmod(place, 4)
        seen = padded[:, row : row + 3, column : column + 3]
        torch.testing.assert_close(made[:, place], torch.einsum("bijc,ocij->bo", seen, weight), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_only_neighbours_count(size: int) -> None:
    """A change in one corner reaches so far and no farther."""
    projector = ConvProjectorConfig(kernel_size=size).build(4, 99, 3)
    given = torch.randn(1, 36, 4)
    changed = given.clone()
    changed[:, 0] += 1
    moved = (projector(changed) != projector(given)).any(-1).view(6, 6)
    reach = size // 2 + 1
    assert moved[:reach, :reach].all() and int(moved.sum()) == reach**2


def test_an_even_kernel_is_refused() -> None:
    """It has no middle."""
    with refused(UserError, "kernel_size", 4, "odd number", 5):
        ConvProjectorConfig(kernel_size=4)


def test_the_reference_knows_no_convolution() -> None:
    """Weights with a convolutional projector are not written under names that the reference would misread."""
    config = SiTConfig(input_size=4, hidden_size=8, depth=1, num_heads=2, num_classes=3)
    norm = LatentNorm(4).state_dict()
    sit_to_reference(Denoiser(SiT(config), [5], 1, 6, MLPProjectorConfig()).state_dict(), norm)
    with refused(UserError, "6 missing", "projectors.0.0.bias", "2 unknown", "projectors.0.conv.bias"):
        sit_to_reference(Denoiser(SiT(config), [5], 1, 6, ConvProjectorConfig()).state_dict(), norm)
