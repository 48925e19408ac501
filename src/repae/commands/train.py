"""A recipe carried out: its files go to ``runs/NAME/``, and the same call goes on after any kill."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from repae.commands.hooks import Monitor, Preview, final_pictures
from repae.config import write_atomic
from repae.data import Dataset
from repae.recipes.recipe import Recipe
from repae.report import build as build_report
from repae.runs.cached_latents import RunLatents
from repae.runs.context import RunContext, run_context, writable, write_environment
from repae.runs.discriminator import discriminator_weights
from repae.runs.perceptual import pretrained_distance, teacher_distance
from repae.runs.players import Interrupted, batches, first_statistics, started_vae, trained_teachers
from repae.runs.preflight.check import preflight
from repae.runs.start import start_denoiser, start_discriminator
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.distributed import barrier, is_main
from repae.runtime.ema import short_run_warning
from repae.track import JsonlTracker, ProgressBar, TensorBoardTracker, Tracker, WandbTracker
from repae.training.build import StepBuilder, build_players
from repae.training.loop import Hook, Loop, Outcome
from repae.training.method import MethodStep

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
    found = preflight(recipe, runs)
    recipe, dataset, latents = found.recipe, found.images(), found.latents
    with run_context(recipe.runtime, runs) as context:
        prepared = _prepared(recipe, dataset, latents, context)
        evaluations = [] if recipe.evaluation.every is None else [Monitor(recipe, prepared.step, dataset, context)]
        # Not earlier: what the hub or a damaged file refuses leaves no folder behind either.
        if is_main():
            write_atomic(writable(folder) / "recipe.yaml", recipe.to_yaml())
            write_environment(folder / "environment.json", context.device)
            if prepared.teachers:
                write_atomic(folder / "teacher.json", json.dumps(prepared.teachers, indent=2) + "\n")
        barrier()
        if (warning := short_run_warning(recipe.ema, recipe.loop.steps)) and is_main():
            log.warning(warning)
        outcome = _loop(recipe, dataset, context, prepared, folder, evaluations)
        if not outcome.finished:
            raise Interrupted(f"stopped after step {outcome.step} of {recipe.loop.steps}; checkpoint in {folder}")
        if is_main():
            final_pictures(recipe, prepared.step, dataset, context, folder)
            build_report(folder)
        barrier()
    return folder


class Prepared(NamedTuple):
    """What a run trains, what it reads, what its checkpoints say of it, and what is known of its teachers."""

    step: MethodStep
    read: Dataset
    meta: dict[str, Any]
    teachers: list[dict[str, Any]]


def _prepared(recipe: Recipe, dataset: Dataset, latents: RunLatents | None, context: RunContext) -> Prepared:
    """The step over freshly built players with whatever they start from."""
    meta: dict[str, Any] = {
        "recipe": recipe.model_dump(mode="json"),
        "resolution": dataset.resolution,
        "image_channels": dataset.channels,
        "class_names": list(dataset.class_names),
        "data": dataset.fingerprint,
    }
    # What may have to be fetched comes before what takes time.
    given = discriminator_weights(recipe, dataset.channels)
    perceptual = pretrained_distance(recipe, context.device)
    teachers = latents.teachers() if latents is not None else None
    teachers = teachers or trained_teachers(recipe, dataset, context)
    perceptual = perceptual or teacher_distance(recipe, teachers.networks)
    players = build_players(
        recipe,
        resolution=dataset.resolution,
        image_channels=dataset.channels,
        num_classes=dataset.num_classes,
        targets=teachers.targets,
    )
    players.vae = started_vae(recipe, dataset, context)
    start_discriminator(recipe, players.discriminator, given)
    read, figures = dataset, []
    if latents is not None:
        latents.warn_of_uncached()
        latents.check_vae(players.vae, dataset)
        meta["latents"] = latents.facts()
        read = latents.reading(dataset, players.targets)
    if players.denoiser is not None and players.latent_norm is not None:
        if not start_denoiser(recipe, players.denoiser, players.latent_norm):
            known = latents.statistics() if latents else first_statistics(recipe, players.vae, dataset, context)
            # Before the builder copies the averages: statistics of 0 and 1 would stay in these for thousands of steps.
            players.latent_norm.set_statistics(*known)
        meta["z_dims"] = list(players.denoiser.z_dims)
        figures = teachers.figures
    builder = StepBuilder(recipe, context.precision, context.device, context.config.compile, perceptual)
    return Prepared(recipe.method.build(players, builder), read, meta, figures)


def _loop(
    recipe: Recipe,
    dataset: Dataset,
    context: RunContext,
    prepared: Prepared,
    folder: Path,
    evaluations: Sequence[Hook],
) -> Outcome:
    trackers = _trackers(recipe, folder) if is_main() else []
    hooks: list[Hook] = [Preview(recipe, prepared.step, dataset, context, folder, trackers), *evaluations]
    loop = Loop(
        prepared.step,
        batches(prepared.read, recipe.loop, recipe.seed, context),
        recipe.loop,
        CheckpointStore(folder / "checkpoints", keep_last=recipe.loop.keep_last),
        meta=prepared.meta,
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
