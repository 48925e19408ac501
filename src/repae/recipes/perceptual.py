"""The networks in whose features the perceptual term measures."""

from __future__ import annotations

from collections.abc import Sequence

from repae.config import UserError
from repae.losses.perceptual import Features
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.recipes.recipe import EmbeddedTeacher as EmbeddedTeacherRecipe
from repae.recipes.recipe import LpipsPerceptual, NoPerceptual, Perceptual, Recipe, TeacherPerceptual
from repae.train.methods import Repa


def check_perceptual(recipe: Recipe) -> None:
    """Refuses, before anything is trained or loaded, a perceptual term that nobody can compute.

    Raises:
        UserError: a weight without a network, LPIPS, or the features of a teacher that is not there.
    """
    if isinstance(recipe.method, Repa):
        return
    if isinstance(recipe.perceptual, NoPerceptual) and recipe.losses.perceptual_weight > 0:
        raise UserError(
            f"losses.perceptual_weight is {recipe.losses.perceptual_weight}, but perceptual.kind is 'none'; "
            "set the weight to 0, or perceptual.kind to 'teacher'"
        )
    if isinstance(recipe.perceptual, LpipsPerceptual):
        raise UserError(
            "perceptual.kind 'lpips' cannot be computed by this version: its pretrained network is not built yet. "
            "Use perceptual.kind 'teacher' with an embedded teacher, or 'none' with losses.perceptual_weight 0"
        )
    embedded = any(isinstance(teacher, EmbeddedTeacherRecipe) for teacher in recipe.teachers)
    if isinstance(recipe.perceptual, TeacherPerceptual) and not embedded:
        raise UserError(
            "perceptual.kind 'teacher' needs an embedded teacher among teachers; "
            "add one (kind 'embedded'), or choose another perceptual.kind"
        )


def perceptual_features(config: Perceptual, networks: Sequence[Teacher]) -> Features | None:
    """The feature maps that a checked recipe's perceptual term asks for; None where it has none."""
    if not isinstance(config, TeacherPerceptual):
        return None
    return next((network.features for network in networks if isinstance(network, EmbeddedTeacher)), None)
