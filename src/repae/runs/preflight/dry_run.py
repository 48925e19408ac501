"""The dry run: what a recipe would take, counted without memory or weights, and what is in its way."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from repae.models.teachers.base import Teacher
from repae.recipes.recipe import Recipe
from repae.runs.preflight.check import preflight
from repae.runs.preflight.problems import Problem
from repae.runs.preflight.rehearsal import DataFacts, Rehearsal
from repae.training.state import Players

COPIES_TRAINED = 4
"""Weight, gradient and Adam's two moments, each in float32."""

PROCESSES = 8
"""The batch is also shown divided among so many, as in the published runs."""

INDENT, WIDTH = 12, 120


@dataclass(frozen=True)
class NetworkSize:
    """One network: parameters, and whether they are trained and averaged."""

    name: str
    parameters: int
    trained: bool
    averaged: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.parameters:,}, {'trained' if self.trained else 'frozen'}"


@dataclass(frozen=True)
class Figures:
    """What a recipe would take. Sizes in bytes, on one process; ``latent`` is (c, h, w), ``activations`` per image."""

    latent: tuple[int, int, int]
    tokens: int | None
    teachers: tuple[str, ...]
    networks: tuple[NetworkSize, ...]
    activations: float

    @property
    def state_bytes(self) -> int:
        """Weights, gradients, Adam's moments and averages, in float32."""
        return 4 * sum(
            network.parameters * ((COPIES_TRAINED if network.trained else 1) + network.averaged)
            for network in self.networks
        )


@dataclass(frozen=True)
class DryRun:
    """What a recipe would do, and what is in its way; without figures where its networks cannot be built."""

    recipe: Recipe
    data: DataFacts
    problems: tuple[Problem, ...]
    figures: Figures | None

    @property
    def epochs(self) -> float | None:
        """Passes over the data, where their number is known."""
        if self.data.count is None:
            return None
        return self.recipe.loop.steps * self.recipe.loop.batch_size / self.data.count

    def __str__(self) -> str:
        """For people."""
        blocking = [str(problem) for problem in self.problems if problem.blocks]
        rows = [
            ("recipe", f"{self.recipe.name}: {self.recipe.about}"),
            ("target", self.recipe.target or "none"),
            ("data", self.data.note),
            *([] if self.figures is None else self._sizes(self.figures)),
            ("training", self._training()),
            *([] if self.figures is None else self._memory(self.figures)),
            *[("to fetch", str(problem)) for problem in self.problems if not problem.blocks],
            *[("in the way", text) for text in blocking or ["nothing: it can start"]],
        ]
        return "\n".join(_row(name, text) for name, text in rows)

    def _sizes(self, figures: Figures) -> list[tuple[str, str]]:
        latent = " x ".join(map(str, figures.latent))
        if figures.tokens is not None:
            latent = f"{latent}, in patches of {self.recipe.backbone.patch_size}: {figures.tokens} tokens"
        return [
            ("latent", latent),
            *[("teacher", teacher) for teacher in figures.teachers],
            *[("parameters", str(network)) for network in figures.networks],
        ]

    def _training(self) -> str:
        loop = self.recipe.loop
        micros = f" in {loop.accumulate} micro-batches" if loop.accumulate > 1 else ""
        epochs = "" if self.epochs is None else f", {self.epochs:.1f} epochs"
        return f"{loop.steps:,} steps of {loop.batch_size} images{micros}{epochs}; {self.recipe.runtime.precision}"

    def _memory(self, figures: Figures) -> list[tuple[str, str]]:
        local = self.recipe.loop.batch_size / self.recipe.loop.accumulate
        shared = f", or {_size(figures.activations * local / PROCESSES)} on each of {PROCESSES}"
        return [
            ("memory", f"{_size(float(figures.state_bytes))} for weights, gradients, Adam's moments and averages"),
            (
                "memory",
                f"an estimate for activations: {_size(figures.activations)} an image, hence "
                f"{_size(figures.activations * local)} for a micro-batch of {local:g} on one process"
                f"{shared if local >= PROCESSES else ''}",
            ),
        ]


def dry_run(recipe: Recipe, runs: Path | None = None) -> DryRun:
    """What `preflight` finds, and the figures of what could be built."""
    found = preflight(recipe, runs)
    figures = None if found.rehearsal is None else _figures(found.recipe, found.rehearsal)
    return DryRun(found.recipe, found.facts, found.problems, figures)


def _figures(recipe: Recipe, rehearsal: Rehearsal) -> Figures:
    denoiser = rehearsal.players.denoiser
    known = zip(rehearsal.teachers, rehearsal.targets.tokens, strict=True)
    teachers = [f"{teacher.name}: {tokens} tokens of {teacher.dim}" for teacher, tokens in known]
    if (own := recipe.method.traits.self_teacher) is not None:
        teachers.append(
            f"self: the average's own tokens after block {own.depth}, with up to {own.interval:g} less noise"
        )
    return Figures(
        latent=rehearsal.players.latent_shape,
        tokens=None if denoiser is None else denoiser.backbone.config.tokens,
        teachers=tuple(teachers),
        networks=_networks(recipe, rehearsal.players, rehearsal.teachers),
        activations=rehearsal.activations,
    )


def _networks(recipe: Recipe, players: Players, teachers: Sequence[Teacher]) -> tuple[NetworkSize, ...]:
    trains = recipe.method.traits.trains
    own = {"denoiser": players.denoiser, "vae": players.vae, "discriminator": players.discriminator}
    return (
        *[
            NetworkSize(name, _count(network), trained=name in trains, averaged=name != "discriminator")
            for name, network in own.items()
            if network is not None
        ],
        *[NetworkSize(f"teacher {each.name}", _count(each), trained=False, averaged=False) for each in teachers],
    )


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _size(volume: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if volume >= size:
            return f"{volume / size:.3g} {unit}"
    return f"{volume / 1e3:.3g} kB"


def _row(name: str, text: str) -> str:
    return textwrap.fill(text, WIDTH, initial_indent=name.ljust(INDENT), subsequent_indent=" " * INDENT)
