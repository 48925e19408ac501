"""Every network of a recipe on the meta device: sizes are checked and counted, nothing is loaded or fetched."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from repae.data import Dataset
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.models.teachers.targets import NoTargets, OnlineTargets, Targets
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig
from repae.recipes.recipe import EmbeddedTeacherTraining, Recipe
from repae.runs.preflight.memory import activations
from repae.training.build import build_players
from repae.training.state import Players

ASSUMED_CLASSES = 10


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data: side, channels, classes, and the number of images where they are at hand."""

    resolution: int
    channels: int
    classes: int
    count: int | None
    note: str

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset | None) -> DataFacts:
        """What is at hand, or what the recipe says of it where it is not."""
        data = recipe.data
        if dataset is None:
            classes = recipe.num_classes or ASSUMED_CLASSES
            assumed = "" if recipe.num_classes else ", a number only assumed here"
            note = f"{data.where}, {data.resolution} px, {classes} classes{assumed}"
            return cls(data.resolution, data.channels, classes, None, note)
        note = f"{data.where}, {len(dataset):,} images of {dataset.resolution} px, {dataset.num_classes} classes"
        return cls(dataset.resolution, dataset.channels, dataset.num_classes, len(dataset), note)


@dataclass(frozen=True)
class Rehearsal:
    """The networks on the meta device, and what one image leaves for the backward pass, in bytes."""

    players: Players
    teachers: tuple[Teacher, ...]
    targets: Targets
    activations: float


def rehearse(recipe: Recipe, facts: DataFacts) -> Rehearsal:
    """Builds every network of ``recipe`` and passes one image through them.

    Raises:
        UserError: resolution, patch, heads, alignment depth, teacher tokens or image sides do not fit.
    """
    with torch.device("meta"):
        teachers = tuple(_teacher(config, facts) for config in recipe.teachers)
        targets = OnlineTargets(teachers, facts.resolution) if teachers else NoTargets()
        players = build_players(
            recipe,
            resolution=facts.resolution,
            image_channels=facts.channels,
            num_classes=facts.classes,
            targets=targets,
        )
    return Rehearsal(players, teachers, targets, activations(recipe, players, teachers, facts.resolution))


def _teacher(config: EmbeddedTeacherTraining | TimmTeacherConfig, facts: DataFacts) -> Teacher:
    if isinstance(config, TimmTeacherConfig):
        return TimmTeacher(config, load=False)
    return EmbeddedTeacher(config.architecture(facts.channels, facts.resolution))
