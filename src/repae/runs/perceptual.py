"""The distances by which the perceptual term measures a reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from repae.config import UserError
from repae.losses.perceptual import Perceptual, feature_distance, lpips, output_distance, weighted_mean
from repae.models.perceptual import CONVNEXT_NAME, VGG_NAME, ConvNextLogits, LpipsNetwork
from repae.models.teachers.base import Teacher
from repae.recipes.recipe import LpipsConvnextPerceptual, LpipsPerceptual, NoPerceptual, Recipe, TeacherPerceptual


def check_perceptual(recipe: Recipe) -> None:
    """Refuses a perceptual term that nobody can compute: without a network, or without the teacher that it asks."""
    if not _counts(recipe):
        return
    if isinstance(recipe.perceptual, NoPerceptual):
        raise UserError(
            f"losses.perceptual_weight is {recipe.losses.perceptual_weight}, but perceptual.kind is 'none'; "
            "set the weight to 0, or perceptual.kind to 'teacher' or 'lpips'"
        )
    if isinstance(recipe.perceptual, TeacherPerceptual) and not recipe.teachers:
        raise UserError(
            "perceptual.kind 'teacher' compares in the features of the first teacher, and teachers is empty; "
            "add one (kind 'embedded' needs no weights), or choose another perceptual.kind"
        )


def perceptual_files(recipe: Recipe) -> Iterator[tuple[str, str, str | None]]:
    """The weights that a recipe's perceptual term needs: option, timm's name on the hub, and the file if one is given.

    LPIPS's own layers come with a package and are listed only where a file is given.
    """
    config = recipe.perceptual
    if not _counts(recipe) or not isinstance(config, LpipsPerceptual):
        return
    yield "perceptual.vgg", VGG_NAME, config.vgg
    if config.linear is not None:
        yield "perceptual.linear", "", config.linear
    if isinstance(config, LpipsConvnextPerceptual):
        yield "perceptual.convnext", CONVNEXT_NAME, config.convnext


def pretrained_distance(recipe: Recipe, device: torch.device) -> Perceptual | None:
    """The distance that a recipe's pretrained networks give, with their weights; None where it asks for none.

    Raises:
        UserError: weights that cannot be had or do not fit.
    """
    config = recipe.perceptual
    if not _counts(recipe) or not isinstance(config, LpipsPerceptual):
        return None
    bf16 = config.precision == "bf16"
    network = LpipsNetwork(_path(config.vgg), _path(config.linear), bf16=bf16).to(device)
    distance: Perceptual = partial(lpips, network, tuple(network.linear))
    if not isinstance(config, LpipsConvnextPerceptual):
        return distance
    convnext = ConvNextLogits(_path(config.convnext), bf16=bf16).to(device)
    parts = ((config.lpips_weight, distance), (config.convnext_weight, partial(output_distance, convnext)))
    return partial(weighted_mean, parts)


def teacher_distance(recipe: Recipe, teachers: Sequence[Teacher]) -> Perceptual | None:
    """The distance in the features of the first teacher; None where the recipe asks for another or none."""
    if not _counts(recipe) or not isinstance(recipe.perceptual, TeacherPerceptual):
        return None
    return partial(feature_distance, teachers[0].features)


def _counts(recipe: Recipe) -> bool:
    return recipe.method.traits.reconstructs and recipe.losses.perceptual_weight > 0


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
