"""A recipe carried out: its files go to ``runs/NAME/``, and the same call goes on after any kill."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from repae.commands.evaluation_hook import Monitor
from repae.commands.preview_hook import Preview, Reconstructions, final_pictures
from repae.config import UserError, write_atomic
from repae.data import Dataset
from repae.recipes.recipe import Recipe
from repae.report import build as build_report
from repae.runs.cached_latents import RunLatents, open_latents
from repae.runs.context import RunContext, run_context, writable, write_environment
from repae.runs.discriminator import discriminator_weights
from repae.runs.identity import check_same_run
from repae.runs.perceptual import check_perceptual, pretrained_distance, teacher_distance
from repae.runs.players import Interrupted, batches, first_statistics, started_vae, trained_teachers
from repae.runs.preflight.plan import check_sizes
from repae.runs.start import check_start, start_denoiser, start_discriminator
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.distributed import barrier, is_main, world
from repae.runtime.ema import short_run_warning
from repae.track import JsonlTracker, ProgressBar, TensorBoardTracker, Tracker, WandbTracker
from repae.training.build import build_models, build_step, build_vae_step
from repae.training.loop import Hook, Loop, Outcome
from repae.training.methods.configs import VaeOnly
from repae.training.methods.vae import VaeStep
from repae.training.state import Step

log = logging.getLogger("repae")


def train(recipe: Recipe, runs: str | Path = "runs") -> Path:
    """Carries out ``recipe`` in ``runs/NAME``, from the newest checkpoint there if there is one.

    Leaves the resolved recipe, the environment, metrics, checkpoints, pictures and ``report.html``.

    Returns:
        The run's folder.

    Raises:
        UserError: the recipe, the data or the folder do not fit; nothing has been trained then.
        Interrupted: SIGTERM or Ctrl-C; a checkpoint is written, and the same call goes on from it.
    """
    runs = Path(runs)
    folder = runs / recipe.name
    check_perceptual(recipe)
    recipe = recipe.resolved()
    check_sizes(recipe)
    check_start(recipe)
    with run_context(recipe.runtime, runs) as context:
        dataset = recipe.data.open()
        if recipe.num_classes not in (None, dataset.num_classes):
            raise UserError(
                f"num_classes is {recipe.num_classes}, the data has {dataset.num_classes} classes; "
                "leave num_classes out to take the data's, or point data.path at the right folder"
            )
        if is_main():
            check_same_run(recipe, writable(folder))
            write_environment(folder / "environment.json", context.device)
        barrier()
        latents = open_latents(recipe, dataset, context)
        step, teacher_figures, meta = _step(recipe, dataset, latents, context)
        if is_main() and teacher_figures:
            write_atomic(folder / "teacher.json", json.dumps(teacher_figures, indent=2) + "\n")
        if (warning := short_run_warning(recipe.ema, recipe.loop.steps)) and is_main():
            log.warning(warning)
        outcome = _loop(recipe, dataset, latents, context, step, meta, folder)
        if not outcome.finished:
            raise Interrupted(f"stopped after step {outcome.step} of {recipe.loop.steps}; checkpoint in {folder}")
        if is_main():
            final_pictures(recipe, step, dataset, context, folder)
            build_report(folder)
        barrier()
    return folder


def _step(
    recipe: Recipe, dataset: Dataset, latents: RunLatents | None, context: RunContext
) -> tuple[Step, list[dict[str, Any]], dict[str, Any]]:
    """The step over freshly built players with whatever they start from, and what a checkpoint says of them."""
    meta: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "resolution": dataset.resolution,
        "image_channels": dataset.channels,
        "class_names": list(dataset.class_names),
        "data": dataset.fingerprint,
    }
    build: dict[str, Any] = {
        "precision": context.precision,
        "device": context.device,
        "compile": context.config.compile,
    }
    # What can be missing or not fit comes before what takes time.
    given = discriminator_weights(recipe, dataset.channels)
    perceptual = pretrained_distance(recipe, context.device)
    teachers = latents.teachers() if latents is not None else None
    teachers = teachers or trained_teachers(recipe, dataset, context)
    build["perceptual"] = perceptual or teacher_distance(recipe, teachers.networks)
    if isinstance(recipe.method, VaeOnly):
        vae = started_vae(recipe, dataset, context)
        alone = build_vae_step(recipe, vae, resolution=dataset.resolution, **build)
        start_discriminator(recipe, alone.discriminator, given)
        return alone, [], meta
    models = build_models(
        recipe,
        resolution=dataset.resolution,
        image_channels=dataset.channels,
        num_classes=dataset.num_classes,
        targets=teachers.targets,
    )
    models.vae = started_vae(recipe, dataset, context)
    start_discriminator(recipe, models.discriminator, given)
    if latents is not None:
        latents.check_vae(models.vae, dataset)
        meta["latents"] = latents.facts()
    if not start_denoiser(recipe, models.denoiser, models.latent_norm):
        known = latents.statistics() if latents else first_statistics(recipe, models.vae, dataset, context)
        models.latent_norm.set_statistics(*known)
    meta["z_dims"] = list(models.denoiser.z_dims)
    return build_step(recipe, models, **build), teachers.figures, meta


def _loop(
    recipe: Recipe,
    dataset: Dataset,
    latents: RunLatents | None,
    context: RunContext,
    step: Step,
    meta: dict[str, Any],
    folder: Path,
) -> Outcome:
    trackers = _trackers(recipe, folder) if is_main() else []
    hooks: list[Hook] = [
        Reconstructions(recipe, step, dataset, context, folder)
        if isinstance(step, VaeStep)
        else Preview(recipe, step, dataset, context, folder, trackers)
    ]
    if recipe.evaluation.every is not None:
        hooks.append(Monitor(recipe, step, dataset, context))
    read = dataset if latents is None else latents.reading(dataset, step.models.targets)  # type: ignore[attr-defined]
    loop = Loop(
        step,
        batches(read, recipe.loop, recipe.seed, context, world()),
        recipe.loop,
        CheckpointStore(folder / "checkpoints", keep_last=recipe.loop.keep_last),
        meta=meta,
        precision=context.precision,
        device=context.device,
        images=len(dataset),
        trackers=trackers,
        hooks=hooks,
    )
    try:
        return loop.run()
    finally:
        for tracker in trackers:
            tracker.close()


def _trackers(recipe: Recipe, folder: Path) -> list[Tracker]:
    track = recipe.track
    trackers: list[Tracker] = [JsonlTracker(folder / "metrics.jsonl")]
    if track.tensorboard:
        trackers.append(TensorBoardTracker(folder / "tensorboard"))
    if track.wandb:
        trackers.append(
            WandbTracker(folder, track.wandb_project, recipe.name, recipe.model_dump(mode="json"), track.wandb_offline)
        )
    if track.progress:
        trackers.append(ProgressBar(recipe.loop.steps, title=recipe.name))
    return trackers
