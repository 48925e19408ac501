"""The gallery of a run: pictures that show what its figures cannot, each with a caption that says what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from repae.config import write_atomic
from repae.data import Dataset
from repae.evaluation import EvaluationConfig
from repae.flow import UNGUIDED, AnySampler, Guidance
from repae.report.figures import NETWORKS
from repae.runs.context import RunContext
from repae.runs.open import Run, open_run
from repae.runtime.checkpoint import CheckpointStore
from repae.sampling import (
    BetweenClasses,
    ImageNoise,
    Mixture,
    VelocityModel,
    between_noise,
    chosen_noise,
    generate,
    grid_labels,
    labels_like,
    sheet,
    write_png,
)

INDEX = "gallery.json"
"""The list of what was drawn, beside the pictures: "pictures" with file, title and caption, "notes" in words."""

COLUMNS = 10
ROWS = 10
WAYS = 5
"""Rows of a picture that goes from one thing to another."""

SHARES = [place / 10 for place in range(11)]
PERCENTS = [f"{share:.0%}" for share in SHARES]
"""Along such a row, both ends included."""

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0)
CHECKPOINTS = 8
LETTERS = 16
"""Of the name of a class, at most."""


class GalleryPicture(NamedTuple):
    name: str
    title: str
    caption: str
    picture: UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Gallery:
    """What is drawn from, and how: sampler, guidance, seed and batch size are those of the run's evaluation."""

    run: Run
    dataset: Dataset
    context: RunContext
    settings: EvaluationConfig

    @property
    def guidance(self) -> Guidance:
        """That of the guided figures, or none where there is no null class."""
        return UNGUIDED if self.run.bundle.null_label is None else self.settings.guidance

    def names(self, labels: Sequence[int]) -> list[str]:
        names = [str(self.run.meta["class_names"][label]) for label in labels]
        return [name if len(name) <= LETTERS else f"{name[: LETTERS - 1]}…" for name in names]

    def classes(self, most: int) -> list[int]:
        return grid_labels(self.run.bundle.num_classes, most, 1).tolist()

    def images(
        self, source: VelocityModel, labels: Sequence[int], noise: ImageNoise, guidance: Guidance
    ) -> UInt8[Tensor, "n c h w"]:
        return generate(
            source, torch.tensor(labels), sampler=self.settings.sampler, guidance=guidance, path=self.run.recipe.path,
            precision=self.context.precision, noise=noise, batch_size=self.settings.batch_size,
        )  # fmt: skip

    def seeds(self, chosen: Sequence[int]) -> ImageNoise:
        return chosen_noise(self.settings.seed, chosen, self.run.bundle.latent_shape)

    def how(self, guidance: Guidance | None, step: int | None = None) -> str:
        """What made a picture: sampler, guidance where it is one for all, weights, seed."""
        strength = [] if guidance is None else [said_guidance(guidance)]
        weights = f"weights {self.run.bundle.name!r}" + (f" of step {step:,}" if step is not None else "")
        return f"{', '.join([said_sampler(self.settings.sampler), *strength, weights])}, seed {self.settings.seed}."


def draw_gallery(
    run: Run,
    dataset: Dataset,
    context: RunContext,
    settings: EvaluationConfig,
    figures: Mapping[str, Any],
    folder: Path,
) -> Path:
    """Draws every picture that this run allows into `folder` and lists them in `gallery.json`, which it gives.

    `settings` are those of the evaluation that found `figures`, whose closest pairs are shown.
    """
    gallery, listed, notes = Gallery(run, dataset, context, settings), [], []
    drawn = [draw(gallery) for draw in (classes, scales, between_seeds, between_classes, checkpoints)]
    compared = figures.get("pairs", {})
    if not compared:
        notes.append("No nearest training images: no network was at hand to find them with.")
    drawn += [nearest(gallery, network, pairs, figures.get(f"copies_{network}")) for network, pairs in compared.items()]
    for each in drawn:
        if isinstance(each, str):
            notes.append(each)
            continue
        write_png(folder / f"{each.name}.png", each.picture)
        listed.append({"file": f"{each.name}.png", "title": each.title, "caption": each.caption})
    facts = {"bundle": run.bundle.name, "step": run.step, "pictures": listed, "notes": notes}
    write_atomic(folder / INDEX, json.dumps(facts, indent=2) + "\n")
    return folder / INDEX


def classes(gallery: Gallery) -> GalleryPicture:
    chosen = gallery.classes(ROWS)
    labels = [label for label in chosen for _ in range(COLUMNS)]
    images = gallery.images(gallery.run.bundle, labels, gallery.seeds(range(len(labels))), UNGUIDED)
    return GalleryPicture(
        "classes",
        "Classes, without guidance",
        f"Each row is one class, as the figures without guidance see it. {gallery.how(UNGUIDED, gallery.run.step)}",
        sheet(images, COLUMNS, rows=gallery.names(chosen)),
    )


def scales(gallery: Gallery) -> GalleryPicture | str:
    if gallery.run.bundle.null_label is None:
        return "No guidance scales: the model has no null class."
    own, chosen = gallery.settings.guidance, gallery.classes(COLUMNS)
    strengths = sorted({*SCALES, own.scale})
    seeds = gallery.seeds(range(len(chosen)))
    images = [gallery.images(gallery.run.bundle, chosen, seeds, own.replace(scale=scale)) for scale in strengths]
    rows = ["none" if scale == 1 else f"{scale:g}" for scale in strengths]
    return GalleryPicture(
        "scales",
        "Across guidance scales",
        "The same noise in each column, its class above it; the guidance scale of each row beside it, for t in "
        f"[{own.low:g}, {own.high:g}]. {gallery.how(None, gallery.run.step)}",
        sheet(torch.cat(images), len(chosen), rows=rows, heads=gallery.names(chosen)),
    )


def between_seeds(gallery: Gallery) -> GalleryPicture:
    chosen = gallery.classes(WAYS)
    mixtures = [Mixture(2 * row, 2 * row + 1, share) for row in range(len(chosen)) for share in SHARES]
    noise = between_noise(gallery.settings.seed, mixtures, gallery.run.bundle.latent_shape)
    labels = [label for label in chosen for _ in SHARES]
    images = gallery.images(gallery.run.bundle, labels, noise, gallery.guidance)
    return GalleryPicture(
        "between-seeds",
        "Between two seeds",
        "Each row is one class; its initial noise goes from one seed to another on the great circle between them. "
        f"{gallery.how(gallery.guidance, gallery.run.step)}",
        sheet(images, len(SHARES), rows=gallery.names(chosen), heads=PERCENTS),
    )


def between_classes(gallery: Gallery) -> GalleryPicture | str:
    chosen = gallery.classes(2 * WAYS)
    if len(chosen) < 2:
        return "Nothing between classes: there is one class."
    ways = list(zip(chosen[::2], chosen[1::2]))
    mixtures = [Mixture(*ends, share) for ends in ways for share in SHARES]
    seeds = gallery.seeds([row for row in range(len(ways)) for _ in SHARES])
    source = BetweenClasses(gallery.run.bundle, mixtures)
    images = gallery.images(source, range(len(mixtures)), seeds, gallery.guidance)
    return GalleryPicture(
        "between-classes",
        "Between two classes",
        "Each row has one noise; its label embedding goes in a straight line from one class to another. "
        f"{gallery.how(gallery.guidance, gallery.run.step)}",
        sheet(images, len(SHARES), rows=[" to ".join(gallery.names(ends)) for ends in ways], heads=PERCENTS),
    )


def checkpoints(gallery: Gallery) -> GalleryPicture | str:
    """The same seeds and classes at every checkpoint that is there, or at eight of them."""
    run, store = gallery.run, CheckpointStore(gallery.run.folder / "checkpoints")
    steps = store.steps()
    if len(steps) < 2:
        return "Nothing across checkpoints: fewer than two are there."
    shown = [steps[round(place)] for place in np.linspace(0, len(steps) - 1, min(CHECKPOINTS, len(steps)))]
    chosen = gallery.classes(COLUMNS)
    seeds = gallery.seeds(range(len(chosen)))
    images = []
    for step in shown:
        then = run
        if step != run.step:
            then = open_run(run.folder, run.bundle.name, step=step, device=gallery.context.device)
        images.append(gallery.images(then.bundle, chosen, seeds, gallery.guidance))
    return GalleryPicture(
        "checkpoints",
        "Across checkpoints",
        "The same noise and class in each column, by the weights and the autoencoder of each step that is kept. "
        f"{gallery.how(gallery.guidance)}",
        sheet(torch.cat(images), len(chosen), rows=[f"step {step:,}" for step in shown], heads=gallery.names(chosen)),
    )


def nearest(gallery: Gallery, network: str, pairs: Sequence[Mapping[str, Any]], copies: float | None) -> GalleryPicture:
    shown = pairs[:COLUMNS]
    numbers = [int(pair["generated"]) for pair in shown]
    labels = labels_like(gallery.dataset.labels, gallery.settings.images)[numbers].tolist()
    made = gallery.images(gallery.run.bundle, labels, gallery.seeds(numbers), UNGUIDED)
    real = gallery.dataset.batch(torch.tensor([int(pair["real"]) for pair in shown])).images
    share = "" if copies is None else f" {copies:.1%} of all come nearer than 99% of training images to each other."
    below = [""] * len(shown) + [f"{pair['distance']:.3g}" for pair in shown]
    rows = ("generated", "training")
    return GalleryPicture(
        f"nearest-{network}",
        f"Nearest training images, {network}",
        f"Above: those of {gallery.settings.images:,} generated images that come closest to a training image. Below: "
        f"that image, with the distance in the features of {NETWORKS.get(network, network)}.{share} "
        f"{gallery.how(UNGUIDED, gallery.run.step)}",
        sheet(torch.cat([made, real]), len(shown), rows=rows, heads=gallery.names(labels), below=below),
    )


def said_sampler(sampler: AnySampler) -> str:
    fields = sampler.model_dump(mode="json", exclude={"kind", "state", "max_steps"})
    steps = fields.pop("steps", None)
    known = [f"{steps} steps"] if steps is not None else []
    changed = [f"{name} {value}" for name, value in fields.items() if value is not False]
    return ", ".join([f"Sampler {sampler.kind}", *known, *changed])


def said_guidance(guidance: Guidance) -> str:
    if guidance.scale == 1:
        return "no guidance"
    return f"guidance {guidance.scale:g} for t in [{guidance.low:g}, {guidance.high:g}]"
