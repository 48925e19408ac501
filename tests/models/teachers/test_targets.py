"""Alignment targets: looked up, computed or averaged, they agree; what does not fit is refused before training."""

from __future__ import annotations

import pytest
import torch
from errors import refused
from torch import Tensor

from repae.config import UserError
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher, EmbeddedTeacherConfig
from repae.models.teachers.targets import (
    CachedTargets,
    ClassMeanTargets,
    NoTargets,
    OnlineTargets,
    Targets,
    cache_tokens,
    check_tokens,
)


class Means(Teacher):
    """A teacher whose tokens can be computed by hand: mean and maximum of each quarter of the image."""

    name = "means"
    dim = 2

    def __init__(self) -> None:
        super().__init__()
        self.register_parameter("unused", torch.nn.Parameter(torch.zeros(1), requires_grad=False))

    def tokens(self, resolution: int) -> int:
        return 4

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        half = images.shape[-1] // 2
        quarters = images.float().unfold(2, half, half).unfold(3, half, half).flatten(2, 3).flatten(3).flatten(1, 1)
        pixels = quarters.permute(0, 2, 1, 3).flatten(2)
        return torch.stack((pixels.mean(-1), pixels.amax(-1)), -1)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (9, 1, 32, 32), dtype=torch.uint8)


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 2])


def pair() -> list[Teacher]:
    return [Means(), EmbeddedTeacher(EmbeddedTeacherConfig(widths=(8, 8, 16), heads=2))]


def test_cached_and_online_targets_agree(images: Tensor) -> None:
    """A table row is what the teacher says of that image, for any batch size of the caching and any order of use."""
    teachers = pair()
    online = OnlineTargets(teachers, 32)
    cached = CachedTargets([cache_tokens(t, images, batch_size=4) for t in teachers])
    pick = torch.tensor([7, 0, 0, 3])
    assert online.dims == cached.dims == (2, 16)
    assert online.tokens == cached.tokens == (4, 16)
    for ours, theirs in zip(
        cached(images[pick], LABELS[pick], pick), online(images[pick], LABELS[pick], pick), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert not ours.requires_grad


def test_caching_takes_a_tensor_or_batches(images: Tensor) -> None:
    """Data sets too large for one tensor are cached batch by batch, with the same result."""
    whole = cache_tokens(Means(), images)
    assert whole.shape == (9, 4, 2)
    assert torch.equal(whole, cache_tokens(Means(), iter(images.split(2))))


def test_class_means_hold_nothing_but_the_label(images: Tensor) -> None:
    """The control's targets are equal within a class, equal to the mean by hand, and ignore image and index."""
    table = cache_tokens(Means(), images)
    targets = ClassMeanTargets([table], LABELS)
    (tokens,) = targets(images[:2], torch.tensor([2, 2]), torch.tensor([0, 1]))
    assert torch.equal(tokens[0], tokens[1])
    torch.testing.assert_close(tokens[0], table[LABELS == 2].mean(0))
    assert (targets.dims, targets.tokens) == ((2,), (4,))


def test_a_class_without_images_disturbs_nobody() -> None:
    """Labels may have gaps, as in a subset of a folder; the means of the others stay finite and right."""
    table = torch.arange(12.0).view(3, 2, 2)
    targets = ClassMeanTargets([table], torch.tensor([0, 3, 3]))
    (tokens,) = targets(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 3]), torch.tensor([0, 1]))
    torch.testing.assert_close(tokens, torch.stack((table[0], table[1:].mean(0))))


def test_without_teachers_there_are_no_targets(images: Tensor) -> None:
    """Plain SiT asks for nothing and fits any denoiser."""
    targets = NoTargets()
    assert targets(images, LABELS, torch.arange(9)) == []
    check_tokens(targets, 16)


@pytest.mark.parametrize("targets", [OnlineTargets(pair(), 32), CachedTargets([torch.zeros(3, 4, 2)])])
def test_another_number_of_tokens_names_both_and_a_remedy(targets: Targets) -> None:
    """The four tokens of a teacher against 64 of the SiT: both numbers, both grids, what to change."""
    with refused(UserError, "4 (2 x 2)", "64 (8 x 8)", "patch_size", "choose a teacher"):
        check_tokens(targets, 64)
