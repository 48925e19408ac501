"""The pictures a run draws of itself, during training and at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from repae.training.method import MethodStep

PAIRS = 40


class Preview:
    """What the run's own bundle makes, drawn every so many steps: samples, or reconstructions where none are drawn.

    Samples come from always the same noise, so that only the training differs between two pictures.
    """

    def __init__(
        self,
        recipe: Recipe,
        step: MethodStep,
        dataset: Dataset,
        context: RunContext,
        folder: Path,
        trackers: Sequence[Tracker],
    ) -> None:
        self.every = recipe.preview.every
        self._recipe, self._step, self._dataset, self._context = recipe, step, dataset, context
        self._folder, self._trackers = folder, trackers

    def __call__(self, step: int) -> dict[str, float]:
        """Draws and writes the picture of step ``step`` on the main process; of reconstructions, their PSNR in dB."""
        if not is_main():
            return {}
        bundle, figures = self._step.bundle(self._recipe.own_bundle), {}
        if bundle.generates:
            picture = class_grid(self._recipe, bundle, self._dataset, self._context)
            for tracker in self._trackers:
                tracker.image(step, "samples", picture)
        else:
            real, reconstructed = reconstructed_images(bundle.vae, self._dataset, self._context)
            picture, figures = pairs(real, reconstructed), {"psnr": psnr(real, reconstructed)}
        write_png(self._folder / "samples" / f"step-{step:07d}.png", picture)
        return figures


def class_grid(recipe: Recipe, source: Bundle, dataset: Dataset, context: RunContext) -> UInt8[np.ndarray, "h w c"]:
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


def reconstructed_images(
    vae: Autoencoder, dataset: Dataset, context: RunContext
) -> tuple[UInt8[Tensor, "n c h w"], UInt8[Tensor, "n c h w"]]:
    images = dataset.batch(evenly_spaced(dataset, PAIRS)).images
    return images, reconstruct(vae, images.to(context.device)).cpu()


def final_pictures(recipe: Recipe, step: MethodStep, dataset: Dataset, context: RunContext, folder: Path) -> None:
    """``samples/grid.png``, where there are samples, and ``samples/reconstructions.png`` of a finished run."""
    bundle = step.bundle(recipe.own_bundle)
    if bundle.generates:
        write_png(folder / "samples" / "grid.png", class_grid(recipe, bundle, dataset, context))
    write_png(folder / "samples" / "reconstructions.png", pairs(*reconstructed_images(bundle.vae, dataset, context)))
