"""`repae evaluate RUN`: the figures of a run on the data it was trained on, its gallery, and its report anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repae.commands.gallery import draw_gallery
from repae.commands.hooks import reconstructed_images
from repae.commands.sample_settings import recipe_of
from repae.config import UserError, write_atomic
from repae.config.options import read_options
from repae.data import Dataset
from repae.evaluation import EvaluationConfig, Evaluator
from repae.evaluation.settings import KINDS
from repae.report import build as build_report
from repae.runs.context import run_context
from repae.runs.networks import networks_at_hand
from repae.runs.open import Run, open_run
from repae.runtime.distributed import is_main
from repae.sampling import pairs, write_png
from repae.training.state import BundleName


class RunEvaluation(EvaluationConfig):
    """How a run is evaluated on the images it was trained on: the recipe's own evaluation, changed.

    Attributes:
        bundle: which weights; none takes the recipe's choice.
        pictures: also draw the gallery into ``samples/gallery``; it takes some hundred images more.
    """

    bundle: BundleName | None = None
    pictures: bool = True


def run_evaluation(run: Path, options: Mapping[str, str | None]) -> RunEvaluation:
    """The evaluation of a run's recipe, changed by options of the command line."""
    kinds = [{"kind": kind} for kind in (options.get("features") or "").split(",")]
    named = {**options, "features": str(kinds)} if all(kind["kind"] in KINDS for kind in kinds) else options
    changes = read_options(RunEvaluation, named)
    RunEvaluation().replace(**changes)
    own = recipe_of(run).evaluation.model_dump(exclude={"every", "quick_images"})
    return RunEvaluation(**own).replace(**changes)


def evaluate_run(folder: str | Path, settings: RunEvaluation | None = None, **changes: Any) -> dict[str, Any]:
    """Measures a run on the data it was trained on and writes ``evaluation.json``, the gallery, then the report anew.

    A run that trained an autoencoder only is measured by its reconstructions and latents.

    Args:
        folder: ``runs/NAME``.
        settings: how; as the recipe says by default. Figures of other weights than the recipe's choice go to
            ``evaluation-BUNDLE.json``.
        changes: single settings by dotted name: ``images=5000, **{"sampler.steps": 50}``.

    Returns:
        Every figure by name, and with them ``intervals``, ``warnings``, ``notes`` and the ``protocol`` that made them.

    Raises:
        UserError: no run there, its data are not what it was trained on, or a network that is asked for has no weights.
    """
    folder = Path(folder)
    settings = (settings or run_evaluation(folder, {})).replace(**changes)
    run = open_run(folder, settings.bundle)
    with run_context(run.recipe.runtime, folder.parent) as context:
        run.to(context.device)
        dataset = _same_data(run)
        figures = Evaluator(
            run.bundle,
            dataset,
            settings,
            precision=context.precision,
            path=run.recipe.path,
            networks=networks_at_hand(run.recipe, settings, dataset, context),
            cache=context.runs / "cache",
        ).evaluate()
        figures["protocol"] |= {"recipe": run.recipe.digest(), "step": run.step}
        if is_main():
            suffix = "" if run.bundle.name == run.recipe.own_bundle else f"-{run.bundle.name}"
            write_atomic(folder / f"evaluation{suffix}.json", json.dumps(figures, indent=2) + "\n")
            samples = folder / "samples"
            if settings.pictures and run.bundle.generates:
                draw_gallery(run, dataset, context, settings, figures, samples / f"gallery{suffix}")
            if settings.pictures and not suffix and not (samples / "reconstructions.png").exists():
                reconstructions = pairs(*reconstructed_images(run.bundle.vae, dataset, context))
                write_png(samples / "reconstructions.png", reconstructions)
            build_report(folder)
    return figures


def _same_data(run: Run) -> Dataset:
    dataset = run.recipe.data.open()
    if run.meta["data"] is not None and dataset.fingerprint != run.meta["data"]:  # nobody knows an import's data
        raise UserError(
            f"the data of {run.folder} have changed since it was trained: their fingerprint was {run.meta['data']}, is "
            f"now {dataset.fingerprint}; figures on other images would not be comparable. Restore the data"
        )
    return dataset
