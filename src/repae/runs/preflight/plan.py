"""The dry run: everything is built without memory or weights, counted, and held against what is at hand."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from repae.config import UserError
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher, EmbeddedTeacherConfig
from repae.models.teachers.targets import NoTargets, OnlineTargets, Targets
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig
from repae.recipes.recipe import EmbeddedTeacherTraining, Recipe
from repae.runs.preflight.memory import activations
from repae.runs.preflight.missing import missing, missing_latents
from repae.training.build import build_players
from repae.training.state import Players

ASSUMED_CLASSES = 10

WORDS_TRAINED = 4
"""Weight, gradient and Adam's two moments, each in float32."""

PROCESSES = 8
"""The batch is also shown divided among so many, as in the published runs."""

INDENT, WIDTH = 12, 120


@dataclass(frozen=True)
class DataFacts:
    """What is known of the data: side, channels, classes, and the number of images where they are at hand."""

    resolution: int
    channels: int
    classes: int
    count: int | None
    note: str


@dataclass(frozen=True)
class NetworkSize:
    """One network: parameters, and whether they are trained and averaged."""

    name: str
    parameters: int
    trained: bool
    averaged: bool


@dataclass(frozen=True)
class DryRun:
    """What a recipe would do. Sizes in bytes, on one process; ``latent`` is (c, h, w), ``activations`` per image."""

    recipe: Recipe
    images: DataFacts
    latent: tuple[int, int, int]
    tokens: int | None
    teachers: tuple[str, ...]
    parts: tuple[NetworkSize, ...]
    activations: float
    missing: tuple[str, ...]

    @property
    def state_bytes(self) -> int:
        """Weights, gradients, Adam's moments and averages, in float32."""
        return 4 * sum(
            part.parameters * ((WORDS_TRAINED if part.trained else 1) + part.averaged) for part in self.parts
        )

    @property
    def epochs(self) -> float | None:
        """Passes over the data, where their number is known."""
        if self.images.count is None:
            return None
        return self.recipe.loop.steps * self.recipe.loop.batch_size / self.images.count

    def __str__(self) -> str:
        """For people."""
        rows = [
            ("recipe", f"{self.recipe.name}: {self.recipe.about}"),
            ("target", self.recipe.target or "none"),
            ("data", self.images.note),
            ("latent", self._latent()),
            *[("teacher", teacher) for teacher in self.teachers],
            *[("parameters", _part(part)) for part in self.parts],
            ("training", self._training()),
            ("memory", f"{_size(float(self.state_bytes))} for weights, gradients, Adam's moments and averages"),
            ("memory", self._activations()),
            *[("missing", text) for text in self.missing],
        ]
        if not self.missing:
            rows.append(("missing", "nothing: it can start"))
        return "\n".join(_row(name, text) for name, text in rows)

    def _latent(self) -> str:
        shape = " x ".join(map(str, self.latent))
        if self.tokens is None:
            return shape
        return f"{shape}, in patches of {self.recipe.backbone.patch_size}: {self.tokens} tokens"

    def _training(self) -> str:
        loop = self.recipe.loop
        micros = f" in {loop.accumulate} micro-batches" if loop.accumulate > 1 else ""
        epochs = "" if self.epochs is None else f", {self.epochs:.1f} epochs"
        return f"{loop.steps:,} steps of {loop.batch_size} images{micros}{epochs}; {self.recipe.runtime.precision}"

    def _activations(self) -> str:
        local = self.recipe.loop.batch_size / self.recipe.loop.accumulate
        shared = f", or {_size(self.activations * local / PROCESSES)} on each of {PROCESSES}"
        return (
            f"an estimate for activations: {_size(self.activations)} an image, hence {_size(self.activations * local)} "
            f"for a micro-batch of {local:g} on one process{shared if local >= PROCESSES else ''}"
        )


def plan(recipe: Recipe) -> DryRun:
    """Builds every network of ``recipe`` on the meta device: sizes that do not fit are refused, nothing is loaded.

    Raises:
        UserError: what the recipe asks for cannot be built, or the data at hand contradict it.
    """
    images = _images(recipe)
    players, teachers, targets = _built(recipe, images)
    denoiser = players.denoiser
    volume = activations(recipe, players, teachers, images.resolution)
    return DryRun(
        recipe=recipe,
        images=images,
        latent=players.latent_shape,
        tokens=None if denoiser is None else denoiser.backbone.config.tokens,
        teachers=(
            *(f"{teacher.name}: {tokens} tokens of {teacher.dim}" for teacher, tokens in zip(teachers, targets.tokens)),
            *_self_teacher(recipe),
        ),
        parts=_parts(recipe, players, teachers),
        activations=volume,
        missing=tuple(missing(recipe)),
    )


def check_sizes(recipe: Recipe) -> None:
    """Refuses sizes that do not fit each other, in seconds and before anything is read, fetched or trained.

    Raises:
        UserError: resolution, patch, heads, alignment depth or teacher tokens do not fit.
    """
    _built(recipe, _described(recipe))


def _built(recipe: Recipe, images: DataFacts) -> tuple[Players, list[Teacher], Targets]:
    with torch.device("meta"):
        teachers = [_teacher(config, images) for config in recipe.teachers]
        targets = OnlineTargets(teachers, images.resolution) if teachers else NoTargets()
        players = build_players(
            recipe,
            resolution=images.resolution,
            image_channels=images.channels,
            num_classes=images.classes,
            targets=targets,
        )
        return players, teachers, targets


def _self_teacher(recipe: Recipe) -> Iterator[str]:
    if (own := recipe.method.traits.self_teacher) is not None:
        yield f"self: the average's own tokens after block {own.depth}, with up to {own.interval:g} less noise"


def _teacher(config: EmbeddedTeacherTraining | TimmTeacherConfig, images: DataFacts) -> Teacher:
    if isinstance(config, TimmTeacherConfig):
        return TimmTeacher(config, load=False)
    return EmbeddedTeacher(
        EmbeddedTeacherConfig(
            image_channels=1 if images.channels == 1 else 3,
            resolution=images.resolution,
            widths=config.widths,
            heads=config.heads,
            position_scale=config.position_scale,
        )
    )


def _images(recipe: Recipe) -> DataFacts:
    """What is at hand, or what the recipe says of it where it is not."""
    if any(recipe.data.missing()):
        return _described(recipe)
    dataset = recipe.data.open()
    if recipe.num_classes not in (None, dataset.num_classes):
        raise UserError(
            f"num_classes is {recipe.num_classes}, the data has {dataset.num_classes} classes; "
            "leave num_classes out to take the data's, or point data.path at the right folder"
        )
    if recipe.latents is not None and not any(missing_latents(recipe)):
        recipe.latents.open(dataset)
    note = f"{recipe.data.where}, {len(dataset):,} images of {dataset.resolution} px, {dataset.num_classes} classes"
    return DataFacts(dataset.resolution, dataset.channels, dataset.num_classes, len(dataset), note)


def _described(recipe: Recipe) -> DataFacts:
    data, classes = recipe.data, recipe.num_classes or ASSUMED_CLASSES
    assumed = "" if recipe.num_classes else ", a number only assumed here"
    note = f"{data.where}, {data.resolution} px, {classes} classes{assumed}"
    return DataFacts(data.resolution, data.channels, classes, None, note)


def _parts(recipe: Recipe, players: Players, teachers: Sequence[Teacher]) -> tuple[NetworkSize, ...]:
    trains = recipe.method.traits.trains
    parts = [NetworkSize("vae", count(players.vae), trained="vae" in trains, averaged=True)]
    if players.denoiser is not None:
        parts.insert(0, NetworkSize("denoiser", count(players.denoiser), trained="denoiser" in trains, averaged=True))
    if players.discriminator is not None:
        trained = "discriminator" in trains
        parts.append(NetworkSize("discriminator", count(players.discriminator), trained, averaged=False))
    for teacher in teachers:
        parts.append(NetworkSize(f"teacher {teacher.name}", count(teacher), trained=False, averaged=False))
    return tuple(parts)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _part(part: NetworkSize) -> str:
    use = "trained" if part.trained else "frozen"
    return f"{part.name}: {part.parameters:,}, {use}"


def _size(volume: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if volume >= size:
            return f"{volume / size:.3g} {unit}"
    return f"{volume / 1e3:.3g} kB"


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=name.ljust(INDENT), subsequent_indent=" " * INDENT)
