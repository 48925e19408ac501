"""The networks in whose features the perceptual term measures."""

from __future__ import annotations

from collections.abc import Sequence

from repae.config import UserError
from repae.losses.perceptual import Features
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.recipes.recipe import LpipsPerceptual, Perceptual, TeacherPerceptual


def perceptual_features(config: Perceptual, networks: Sequence[Teacher]) -> Features | None:
    """The feature maps that a recipe's perceptual term asks for; None where it has none.

    Raises:
        UserError: nobody gives such features.
    """
    if isinstance(config, TeacherPerceptual):
        for network in networks:
            if isinstance(network, EmbeddedTeacher):
                return network.features
        raise UserError(
            "perceptual.kind 'teacher' needs an embedded teacher among teachers; "
            "add one (kind 'embedded'), or choose another perceptual.kind"
        )
    if isinstance(config, LpipsPerceptual):
        raise UserError(
            "perceptual.kind 'lpips' cannot be computed by this version: its pretrained network is not built yet. "
            "Use perceptual.kind 'teacher' with an embedded teacher, or 'none' with losses.perceptual_weight 0"
        )
    return None
