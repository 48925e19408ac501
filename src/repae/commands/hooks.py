"""What a run draws and measures of itself during training, and the pictures at its end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from repae.config import UserError, suggest
from repae.data import Dataset
from repae.evaluation import EvaluationConfig, Evaluator, psnr
from repae.flow import Euler
from repae.models.autoencoders import Autoencoder
from repae.models.bundle import Bundle
from repae.models.pixels import reconstruct
from repae.preparation.statistics import evenly_spaced
from repae.recipes.recipe import EVALUATED, Recipe
from repae.runs.context import RunContext
from repae.runs.networks import networks_at_hand
from repae.runtime.distributed import is_main
from repae.sampling import generate, grid, grid_labels, pairs, write_png
from repae.track import Tracker
from repae.training.method import MethodStep

PAIRS = 40

REHEARSED = 64
"""Images of the rehearsal: more than any figure's number of neighbours needs."""

OF_THE_DATA = ("_floor", "_real")
"""How the names of figures end that no training changes."""


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
    bundle = step.bundle(recipe.own_bundle)
    if bundle.generates:
        write_png(folder / "samples" / "grid.png", class_grid(recipe, bundle, dataset, context))
    write_png(folder / "samples" / "reconstructions.png", pairs(*reconstructed_images(bundle.vae, dataset, context)))


class Monitor:
    """A hook that evaluates the recipe's bundle every so many steps, and takes no random number of the training's.

    Where the best checkpoint is chosen by one of its figures, a rehearsal on a few images, before the first step, says
    whether there is such a figure.

    Raises:
        UserError: a network that the recipe names has no weights, or there is no figure as `loop.best` names it.
    """

    def __init__(self, recipe: Recipe, step: MethodStep, dataset: Dataset, context: RunContext) -> None:
        assert recipe.evaluation.every is not None
        self.every = recipe.evaluation.every
        self._recipe, self._step, self._dataset, self._context = recipe, step, dataset, context
        self._settings = recipe.evaluation.quick()
        if is_main():
            self._networks = networks_at_hand(recipe, self._settings, dataset, context)
            self._check_best()

    def __call__(self, step: int) -> dict[str, float]:
        """The figures after step ``step``, on the main process; the others have none and wait for it in the loop."""
        return self._figures(self._settings) if is_main() else {}

    def _figures(self, settings: EvaluationConfig) -> dict[str, float]:
        figures = Evaluator(
            self._step.bundle(self._recipe.own_bundle),
            self._dataset,
            settings,
            precision=self._context.precision,
            path=self._recipe.path,
            networks=self._networks,
            cache=self._context.runs / "cache",
            passing=True,
        ).evaluate()
        return {
            f"{EVALUATED}{name}": float(figure)
            for name, figure in figures.items()
            if isinstance(figure, (int, float)) and not name.endswith(OF_THE_DATA)
        }

    def _check_best(self) -> None:
        best = self._recipe.loop.best
        if best is None or not best.metric.startswith(EVALUATED):
            return
        few = min(REHEARSED, self._settings.images)
        # One step of Euler: only the names of the figures matter here.
        rehearsal = self._settings.replace(
            images=few, guided_images=2, sampler=Euler(steps=1, state=self._settings.sampler.state)
        )
        found = self._figures(rehearsal)
        if best.metric not in found:
            hint = suggest(best.metric, found)
            raise UserError(f"loop.best.metric: no evaluation finds {best.metric!r}{hint}; it finds {', '.join(found)}")
