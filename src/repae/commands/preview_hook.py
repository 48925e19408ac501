"""The pictures a run draws of itself, during training and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from repae.data import Dataset
from repae.evaluation import psnr
from repae.models.autoencoders import Autoencoder
from repae.models.bundle import Bundle
from repae.models.pixels import reconstruct
from repae.preparation.statistics import evenly_spaced
from repae.recipes.recipe import Recipe
from repae.runs.context import RunContext
from repae.runtime.distributed import is_main
from repae.sampling import generate, grid, grid_labels, pairs, write_png
from repae.track import Tracker
from repae.training.methods.vae import VaeStep
from repae.training.state import Step, bundle

PAIRS = 40


class Preview:
    """A grid of classes from always the same noise, so that only the training differs between two of them."""

    def __init__(
        self,
        recipe: Recipe,
        step: Step,
        dataset: Dataset,
        context: RunContext,
        folder: Path,
        trackers: Sequence[Tracker],
    ) -> None:
        self.every = recipe.preview.every
        self._recipe, self._step, self._dataset, self._context = recipe, step, dataset, context
        self._folder, self._trackers = folder, trackers

    def __call__(self, step: int) -> dict[str, float]:
        """Draws, writes and records the grid of step ``step`` on the main process; the others go on."""
        if is_main():
            picture = class_grid(self._recipe, bundle_of(self._step, self._recipe), self._dataset, self._context)
            write_png(self._folder / "samples" / f"step-{step:07d}.png", picture)
            for tracker in self._trackers:
                tracker.image(step, "samples", picture)
        return {}


def bundle_of(step: Step, recipe: Recipe) -> Bundle:
    """The recipe's bundle of a step that trains a denoiser."""
    models, averages = step.models, step.averages  # type: ignore[attr-defined]
    return bundle(recipe.bundle, models, averages)


def class_grid(recipe: Recipe, source: Bundle, dataset: Dataset, context: RunContext) -> UInt8[np.ndarray, "h w c"]:
    """One row per class, drawn as ``recipe.preview`` says; without guidance where the model has no null class."""
    preview = recipe.preview
    labels = grid_labels(dataset.num_classes, preview.classes, preview.per_class)
    images = generate(
        source,
        labels,
        sampler=preview.sampler,
        guidance=preview.guidance if source.null_label is not None else None,
        path=recipe.path,
        precision=context.precision,
        seed=recipe.seed,
    )
    return grid(images, preview.per_class)


class Reconstructions:
    """Real images above their reconstructions and the difference, during the training of an autoencoder."""

    def __init__(self, recipe: Recipe, step: VaeStep, dataset: Dataset, context: RunContext, folder: Path) -> None:
        self.every = recipe.preview.every
        self._step, self._dataset, self._context, self._folder = step, dataset, context, folder

    def __call__(self, step: int) -> dict[str, float]:
        """Draws and writes the pairs of step ``step`` and gives their PSNR in dB."""
        if not is_main():
            return {}
        vae: Any = self._step.average.module
        real, reconstructed = reconstructed_images(vae, self._dataset, self._context)
        write_png(self._folder / "samples" / f"step-{step:07d}.png", pairs(real, reconstructed))
        return {"psnr": psnr(real, reconstructed)}


def reconstructed_images(
    vae: Autoencoder, dataset: Dataset, context: RunContext
) -> tuple[UInt8[Tensor, "n c h w"], UInt8[Tensor, "n c h w"]]:
    """Some images spread over the data set, and what the autoencoder makes of them."""
    images = dataset.batch(evenly_spaced(dataset, PAIRS)).images
    return images, reconstruct(vae, images.to(context.device)).cpu()


def final_pictures(recipe: Recipe, step: Step, dataset: Dataset, context: RunContext, folder: Path) -> None:
    """``samples/grid.png`` and ``samples/reconstructions.png`` of a finished run."""
    if isinstance(step, VaeStep):
        vae: Any = step.average.module
    else:
        source = bundle_of(step, recipe)
        vae = source.vae
        write_png(folder / "samples" / "grid.png", class_grid(recipe, source, dataset, context))
    write_png(folder / "samples" / "reconstructions.png", pairs(*reconstructed_images(vae, dataset, context)))
