"""What the denoiser's tokens are aligned to: teacher tokens computed on the spot, looked up, or averaged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, UInt8
from pydantic import Field
from torch import Tensor

from repae.config import Config, UserError
from repae.models.teachers.base import Teacher
from repae.models.teachers.degeneracy import class_means
from repae.models.teachers.extract import extract_visual_features

Images = UInt8[Tensor, "b c h w"]
Numbers = Int64[Tensor, " b"]
Tokens = list[Float[Tensor, "b _ _"]]
"""For each teacher float32 tokens ``[B, N, D]``."""


class SpatialNormConfig(Config):
    """Tokens normalised over their places, channel by channel, so that what differs between places counts (iREPA).

    Attributes:
        gamma: how much of the image's mean token is taken off; 1 is all of it.
    """

    gamma: float = Field(default=0.6, ge=0, le=1)


def spatially_normalised(tokens: Float[Tensor, "b n d"], config: SpatialNormConfig) -> Float[Tensor, "b n d"]:
    """(z - gamma mean z) / std z, mean and standard deviation over the places of each image (arXiv 2512.10794)."""
    centred = tokens - config.gamma * tokens.mean(1, keepdim=True)
    return centred / (centred.std(1, keepdim=True) + 1e-6)


@runtime_checkable
class Targets(Protocol):
    """Alignment targets of a batch, one set of tokens for each teacher.

    Attributes:
        dims: width of each teacher's tokens.
        tokens: number of each teacher's tokens.
        names: what each teacher is called in errors.
    """

    dims: tuple[int, ...]
    tokens: tuple[int, ...]
    names: tuple[str, ...]

    def __call__(self, images: Images, labels: Numbers, indices: Numbers) -> Tokens:
        """Each teacher's tokens on the device of ``images``, without a graph."""
        ...


class NoTargets:
    """For training without alignment."""

    dims: tuple[int, ...] = ()
    tokens: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    def __call__(self, images: Images, labels: Numbers, indices: Numbers) -> Tokens:
        return []


class GivenTargets:
    """Tokens that come with each batch, from a cache beside the images; here only what they are like."""

    def __init__(self, names: Sequence[str], tokens: Sequence[int], dims: Sequence[int]) -> None:
        self.names, self.tokens, self.dims = tuple(names), tuple(tokens), tuple(dims)

    def __call__(self, images: Images, labels: Numbers, indices: Numbers) -> Tokens:
        raise AssertionError("the batch came without the tokens that it should bring along")


class OnlineTargets:
    """Every batch is shown to the teachers, as it is, mirrored images included."""

    def __init__(self, teachers: Sequence[Teacher], resolution: int) -> None:
        self.teachers = tuple(teachers)
        self.dims = tuple(teacher.dim for teacher in teachers)
        self.tokens = tuple(teacher.tokens(resolution) for teacher in teachers)
        self.names = tuple(teacher.name for teacher in teachers)

    def __call__(self, images: Images, labels: Numbers, indices: Numbers) -> Tokens:
        return extract_visual_features(self.teachers, images)


class _Tables:
    """Tokens looked up in one table ``[n, N, D]`` for each teacher, on the device of the batches."""

    def __init__(self, tables: Sequence[Float[Tensor, "_ _ _"]]) -> None:
        assert len({len(table) for table in tables}) <= 1, "every teacher has seen the same images"
        self.tables = tuple(tables)
        self.dims = tuple(table.shape[2] for table in tables)
        self.tokens = tuple(table.shape[1] for table in tables)
        self.names = tuple(f"number {k}" for k in range(1, len(tables) + 1))


class CachedTargets(_Tables):
    """Tokens computed once for every image of the data set, by `cache_tokens`, and found again by its index.

    Only for images that never change: a mirrored image would meet the tokens of the unmirrored one.
    """

    def __call__(self, images: Images, labels: Numbers, indices: Numbers) -> Tokens:
        return [table[indices] for table in self.tables]


class ClassMeanTargets(_Tables):
    """The mean tokens of each (class, place): a control that holds nothing but what the label already says.

    What alignment gains with these it owes to the labels, which reach the denoiser anyway. ``tables`` hold for each
    teacher the tokens of all images, ``[n, N, D]``.
    """

    def __init__(self, tables: Sequence[Float[Tensor, "_ _ _"]], labels: Int64[Tensor, " n"]) -> None:
        super().__init__([class_means(table, labels.to(table.device)) for table in tables])

    def __call__(self, images: Images, labels: Numbers, indices: Numbers) -> Tokens:
        return [table[labels] for table in self.tables]


@torch.no_grad()
def cache_tokens(
    teacher: Teacher,
    images: UInt8[Tensor, "n c h w"] | Iterable[UInt8[Tensor, "_ c h w"]],
    *,
    batch_size: int = 256,
) -> Float[Tensor, "n l d"]:
    """Tokens of all images, float32 on the CPU; ``batch_size`` changes the memory needed and nothing else."""
    device = next(teacher.parameters()).device
    batches = images.split(batch_size) if isinstance(images, Tensor) else images
    return torch.cat([teacher(batch.to(device)).cpu() for batch in batches])


def check_tokens(targets: Targets, own_tokens: int) -> None:
    """Refuse (`UserError`) a teacher with another number of tokens than the denoiser, before anything is trained."""
    for name, tokens in zip(targets.names, targets.tokens, strict=True):
        if tokens != own_tokens:
            raise UserError(
                f"teacher {name} gives {_grid(tokens)} tokens, the backbone has {_grid(own_tokens)}; they must be "
                f"equal: set backbone.patch_size to another value, or choose a teacher (for a timm one: its grid) "
                f"with {_grid(own_tokens)} tokens"
            )


def _grid(tokens: int) -> str:
    side = math.isqrt(tokens)
    return f"{tokens} ({side} x {side})" if side * side == tokens else str(tokens)
