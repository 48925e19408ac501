"""The dry run: everything is built without memory or weights, counted, and held against what is at hand."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from repae.config import UserError
from repae.data import DigitsConfig
from repae.models.discriminator import PatchGAN
from repae.models.teachers.base import Teacher
from repae.models.teachers.embedded import EmbeddedTeacher as EmbeddedNetwork
from repae.models.teachers.embedded import EmbeddedTeacherConfig
from repae.models.teachers.targets import NoTargets, OnlineTargets, Targets
from repae.models.teachers.timm import TimmTeacher as TimmNetwork
from repae.recipes.footprint import Players, activations
from repae.recipes.recipe import EmbeddedTeacher, FromWeights, LpipsPerceptual, Recipe, TimmTeacher
from repae.runtime.device import pick_device
from repae.train.build import build_discriminator, build_models, build_vae
from repae.train.methods import Repa, VaeOnly

ASSUMED_CLASSES = 10

WORDS_TRAINED = 4
"""Weight, gradient and Adam's two moments, each in float32."""

PROCESSES = 8
"""The batch is also shown divided among so many, as in the published runs."""

INDENT, WIDTH = 12, 120


@dataclass(frozen=True)
class Images:
    """What is known of the data: side, channels, classes, and the number of images where they are at hand."""

    resolution: int
    channels: int
    classes: int
    count: int | None
    note: str


@dataclass(frozen=True)
class Part:
    """One network: parameters, and whether they are trained and averaged."""

    name: str
    parameters: int
    trained: bool
    averaged: bool


@dataclass(frozen=True)
class Plan:
    """What a recipe would do. Sizes in bytes, on one process; ``latent`` is (c, h, w), ``activations`` per image."""

    recipe: Recipe
    images: Images
    latent: tuple[int, int, int]
    tokens: int | None
    teachers: tuple[str, ...]
    parts: tuple[Part, ...]
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
        return f"{shape}, in patches of {self.recipe.sit.patch_size}: {self.tokens} tokens"

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


def plan(recipe: Recipe) -> Plan:
    """Builds every network of ``recipe`` on the meta device: sizes that do not fit are refused, nothing is loaded.

    Raises:
        UserError: what the recipe asks for cannot be built, or the data at hand contradict it.
    """
    images = _images(recipe)
    players, teachers, targets = _built(recipe, images)
    vae, denoiser = players.vae, players.denoiser
    side = images.resolution // vae.factor
    volume = activations(recipe, players, teachers, images.resolution)
    missing = [*_missing_data(recipe), *_missing_teachers(recipe), *_missing_weights(recipe), *_missing_device(recipe)]
    return Plan(
        recipe=recipe,
        images=images,
        latent=(vae.latent_channels, side, side),
        tokens=None if denoiser is None else denoiser.sit.config.tokens,
        teachers=tuple(
            f"{teacher.name}: {tokens} tokens of {teacher.dim}" for teacher, tokens in zip(teachers, targets.tokens)
        ),
        parts=_parts(recipe, players, teachers),
        activations=volume,
        missing=tuple(missing),
    )


def check_sizes(recipe: Recipe) -> None:
    """Refuses sizes that do not fit each other, in seconds and before anything is read, fetched or trained.

    Raises:
        UserError: resolution, patch, heads, alignment depth or teacher tokens do not fit.
    """
    _built(recipe, _described(recipe))


def _built(recipe: Recipe, images: Images) -> tuple[Players, list[Teacher], Targets]:
    with torch.device("meta"):
        teachers = [_teacher(config, images) for config in recipe.teachers]
        targets = OnlineTargets(teachers, images.resolution) if teachers else NoTargets()
        return _players(recipe, images, targets), teachers, targets


def _players(recipe: Recipe, images: Images, targets: Targets) -> Players:
    if isinstance(recipe.method, VaeOnly):
        return Players(build_vae(recipe, images.channels), None, build_discriminator(recipe, images.channels))
    models = build_models(
        recipe,
        resolution=images.resolution,
        image_channels=images.channels,
        num_classes=images.classes,
        targets=targets,
    )
    judge = models.discriminator
    assert judge is None or isinstance(judge, PatchGAN)
    return Players(models.vae, models.denoiser, judge)


def _teacher(config: EmbeddedTeacher | TimmTeacher, images: Images) -> Teacher:
    if isinstance(config, TimmTeacher):
        return TimmNetwork(config, load=False)
    return EmbeddedNetwork(
        EmbeddedTeacherConfig(
            image_channels=1 if images.channels == 1 else 3,
            resolution=images.resolution,
            widths=config.widths,
            heads=config.heads,
            position_scale=config.position_scale,
        )
    )


def _images(recipe: Recipe) -> Images:
    """What is at hand, or what the recipe says of it where it is not."""
    if any(_missing_data(recipe)):
        return _described(recipe)
    dataset = recipe.data.open()
    if recipe.num_classes not in (None, dataset.num_classes):
        raise UserError(
            f"num_classes is {recipe.num_classes}, the data has {dataset.num_classes} classes; "
            "leave num_classes out to take the data's, or point data.path at the right folder"
        )
    note = f"{_where(recipe)}, {len(dataset):,} images of {dataset.resolution} px, {dataset.num_classes} classes"
    return Images(dataset.resolution, dataset.channels, dataset.num_classes, len(dataset), note)


def _described(recipe: Recipe) -> Images:
    data, classes = recipe.data, recipe.num_classes or ASSUMED_CLASSES
    assumed = "" if recipe.num_classes else ", a number only assumed here"
    note = f"{_where(recipe)}, {data.resolution} px, {classes} classes{assumed}"
    return Images(data.resolution, data.channels, classes, None, note)


def _where(recipe: Recipe) -> str:
    return "the embedded digits" if isinstance(recipe.data, DigitsConfig) else recipe.data.path


# What is missing, and what to do about it


def _missing_data(recipe: Recipe) -> Iterator[str]:
    if (missing := recipe.data.missing()) is not None:
        yield f"data: {missing}"


def _missing_teachers(recipe: Recipe) -> Iterator[str]:
    for position, config in enumerate(recipe.teachers):
        option = f"--teachers.{position}"
        if isinstance(config, EmbeddedTeacher):
            if config.folder is not None and not Path(config.folder).is_dir():
                yield f"teacher: there is no folder {config.folder}; leave {option}.folder out to train one"
        elif config.weights is not None and not Path(config.weights).is_file():
            yield f"teacher {config.name}: there is no file {config.weights}; give {option}.weights FILE"
        elif config.weights is None and not _in_hub_cache(config.name):
            yield (
                f"teacher {config.name}: its weights are not here yet and come from the hub when the run starts; "
                f"without a connection, fetch its model.safetensors elsewhere and give {option}.weights FILE"
            )


def _in_hub_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(name)
    if known is None or not known.hf_hub_id:
        return False
    files = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(known.hf_hub_id, file), str) for file in files)


def _missing_weights(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.start, FromWeights) and not Path(recipe.start.path).exists():
        yield (
            f"vae: there are no weights at {recipe.start.path}; put them there (a diffusers folder, safetensors or the "
            "reference's .pt), or say where they are with --start.path PATH, or begin without: --start.kind scratch"
        )
    if isinstance(recipe.perceptual, LpipsPerceptual):
        for name, what in (("vgg", "torchvision's VGG16"), ("linear", "LPIPS's linear layers")):
            path = getattr(recipe.perceptual, name)
            if path is None or not Path(path).is_file():
                yield f"perceptual: {what} is {path or 'not given'}; give its weights with --perceptual.{name} FILE"


def _missing_device(recipe: Recipe) -> Iterator[str]:
    try:
        pick_device(recipe.runtime.device)
    except UserError as error:
        yield f"device: {error}"


def _parts(recipe: Recipe, players: Players, teachers: Sequence[Teacher]) -> tuple[Part, ...]:
    method = recipe.method
    vae = not isinstance(method, Repa) and getattr(method, "train_autoencoder", True)
    parts = [Part("vae", count(players.vae), trained=vae, averaged=True)]
    if players.denoiser is not None:
        parts.insert(0, Part("denoiser", count(players.denoiser), trained=True, averaged=True))
    if players.discriminator is not None:
        parts.append(Part("discriminator", count(players.discriminator), trained=True, averaged=False))
    for teacher in teachers:
        parts.append(Part(f"teacher {teacher.name}", count(teacher), trained=False, averaged=False))
    return tuple(parts)


def count(module: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def _part(part: Part) -> str:
    use = "trained" if part.trained else "frozen"
    return f"{part.name}: {part.parameters:,}, {use}"


def _size(volume: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if volume >= size:
            return f"{volume / size:.3g} {unit}"
    return f"{volume / 1e3:.3g} kB"


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=name.ljust(INDENT), subsequent_indent=" " * INDENT)
