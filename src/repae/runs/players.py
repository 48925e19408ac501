"""What a run needs first and may share with others: its teachers and its autoencoder, made once and kept."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repae.config import UserError, locked, write_atomic
from repae.data import Batch, Dataset, Loader
from repae.models.autoencoders import Autoencoder, DiffusersConfig
from repae.models.teachers.base import Teacher
from repae.models.teachers.degeneracy import degeneracy, describe
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.models.teachers.targets import (
    CachedTargets,
    ClassMeanTargets,
    NoTargets,
    OnlineTargets,
    Targets,
    cache_tokens,
)
from repae.models.teachers.timm import TimmTeacher
from repae.preparation.statistics import evenly_spaced, latent_statistics
from repae.recipes.recipe import EmbeddedTeacherTraining, FromPublished, FromRun, FromWarmup, FromWeights, Recipe
from repae.recipes.recipe import Teacher as AnyTeacher
from repae.runs.context import RunContext
from repae.runs.weights import load_vae
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.distributed import World, barrier, is_main, world
from repae.runtime.modes import evaluating
from repae.track import ProgressBar
from repae.training.build import StepBuilder, build_players, build_vae
from repae.training.loop import Loop, LoopConfig
from repae.training.methods import VaeOnly
from repae.training.state import Step
from repae.training.teacher_step import TeacherStep

CENTRE_IMAGES, MEASURED_IMAGES = 10_000, 4_000
"""From how many images a teacher's mean token and its degeneracy figures are taken, at most."""

IN_MEMORY = 64 * 2**20
"""Bytes of teacher tokens up to which the tokens of all images are computed once and looked up."""


log = logging.getLogger("repae")


class Interrupted(Exception):  # noqa: N818 (not an error)
    """A signal ended a training; its checkpoint is written and the same command goes on."""


def _pretrain(
    label: str,
    step: Step,
    config: LoopConfig,
    seed: int,
    dataset: Dataset,
    context: RunContext,
    folder: Path,
    among: World | None = None,
) -> None:
    """One preparatory training to its end, from the newest of its own checkpoints below ``folder`` if there is one.

    Raises:
        Interrupted: a signal came first.
    """
    loop = Loop(
        step,
        batches(dataset, config, seed, context, among),
        config,
        CheckpointStore(folder / "checkpoints", keep_last=1),
        meta={"stage": label},
        precision=context.precision,
        device=context.device,
        images=len(dataset),
        trackers=[ProgressBar(config.steps, title=label)] if is_main() else [],
        among=among or world(),
    )
    try:
        outcome = loop.run()
    finally:
        for tracker in loop.trackers:
            tracker.close()
    if not outcome.finished:
        raise Interrupted(f"{label} stopped after step {outcome.step} of {config.steps}; checkpoint in {folder}")


def batches(
    dataset: Dataset, loop: LoopConfig, seed: int, context: RunContext, among: World | None = None
) -> Callable[[int], Iterator[Batch]]:
    """What the loop calls for this process's micro-batches from a given step on."""
    return lambda start: iter(
        Loader(
            dataset,
            loop.batch_size,
            seed=seed,
            share_count=loop.accumulate,
            world=among or world(),
            workers=context.config.workers,
            start_step=start,
            pin_memory=context.device.type == "cuda",
        )
    )


@dataclass(frozen=True)
class RunTeachers:
    """The frozen networks of a run, the targets they give, and what is known of them."""

    networks: tuple[Teacher, ...]
    targets: Targets
    figures: list[dict[str, Any]]


def trained_teachers(recipe: Recipe, dataset: Dataset, context: RunContext) -> RunTeachers:
    """The recipe's teachers, trained first where they are embedded ones, and their tokens as alignment targets.

    Tokens of a small data set that is never mirrored are computed once; otherwise each batch is shown to the teachers.

    Raises:
        UserError: weights that are missing or do not fit.
        Interrupted: a signal came during the training of an embedded teacher.
    """
    networks, figures = teacher_networks(recipe.teachers, dataset, context)
    return RunTeachers(tuple(networks), _targets(recipe, networks, dataset, context), figures)


def teacher_networks(
    configs: Sequence[AnyTeacher], dataset: Dataset, context: RunContext
) -> tuple[list[Teacher], list[dict[str, Any]]]:
    """The frozen networks on the run's device, and what is known of the embedded ones. Raises as `trained_teachers`."""
    networks: list[Teacher] = []
    figures: list[dict[str, Any]] = []
    for config in configs:
        if isinstance(config, EmbeddedTeacherTraining):
            network, known = _embedded(config, dataset, context)
            figures.append(known)
        else:
            network = TimmTeacher(config)
        networks.append(network.to(context.device))
    return networks, figures


def started_vae(recipe: Recipe, dataset: Dataset, context: RunContext) -> Autoencoder:
    """The recipe's autoencoder with the weights it starts from, on the run's device.

    Raises:
        UserError: a weights file that is missing or does not fit.
        Interrupted: a signal came during the warm-up.
    """
    vae = build_vae(recipe, dataset.channels).to(context.device)
    if isinstance(recipe.start, (FromWeights, FromRun)):
        load_vae(vae, Path(recipe.start.path))
    elif isinstance(recipe.start, FromWarmup):
        vae.load_state_dict(_warmed(recipe, recipe.start, dataset, context))
    elif isinstance(recipe.start, FromPublished):
        assert isinstance(recipe.vae, DiffusersConfig), recipe.vae
        vae.load_state_dict(recipe.vae.weights())
    return vae


def first_statistics(recipe: Recipe, vae: Autoencoder, dataset: Dataset, context: RunContext) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of raw latents with which the latent normaliser begins."""
    if recipe.latent_norm.statistics == "data":
        with evaluating(vae):
            return latent_statistics(vae, dataset, context.precision)
    published = vae.published_statistics()
    assert published is not None, "check_published_statistics has refused this"
    return published


def check_published_statistics(recipe: Recipe, vae: Autoencoder) -> None:
    """Refuses to begin with published statistics of an autoencoder that has none."""
    if recipe.latent_norm.statistics == "published" and vae.published_statistics() is None:
        raise UserError(
            f"latent_norm.statistics is 'published', and a vae of kind {recipe.vae.kind!r} comes with none; "
            "set it to 'data' to take those of the run's own latents"
        )


def _warmed(recipe: Recipe, start: FromWarmup, dataset: Dataset, context: RunContext) -> dict[str, Any]:
    """Weights of the autoencoder after its warm-up, which later runs with the same settings share."""
    losses = recipe.losses.replace(discriminator_weight=0.0, perceptual_weight=0.0)
    loop = LoopConfig(steps=start.steps, batch_size=start.batch_size, checkpoint_every=start.steps)
    setup = recipe.replace(
        method=VaeOnly(), losses=losses, loop=loop, discriminator=None, **{"optimisers.vae": start.optimiser}
    )
    facts = {
        "vae": recipe.vae.model_dump(mode="json"),
        "losses": losses.model_dump(mode="json"),
        "start": start.model_dump(mode="json"),
        "seed": recipe.seed,
        "precision": context.precision.name,
        "data": dataset.fingerprint,
    }
    folder = _cache_folder(context, "vae", facts)
    store = CheckpointStore(folder / "checkpoints", keep_last=1)
    with one_maker(folder):
        newest = store.latest()
        if newest is None or store.describe(newest).step < start.steps:
            players = build_players(
                setup,
                resolution=dataset.resolution,
                image_channels=dataset.channels,
                num_classes=dataset.num_classes,
                targets=NoTargets(),
            )
            builder = StepBuilder(setup, context.precision, context.device, context.config.compile)
            step = setup.method.build(players, builder)
            _pretrain("autoencoder", step, loop, recipe.seed, dataset, context, folder)
    newest = store.latest()
    assert newest is not None, f"the warm-up left no checkpoint in {folder}"
    return store.read(newest, "vae")


def _targets(recipe: Recipe, networks: list[Teacher], dataset: Dataset, context: RunContext) -> Targets:
    if not networks:
        return NoTargets()
    if not _fit_in_memory(networks, dataset):
        assert not recipe.class_mean_targets, "check_class_means has refused this"
        return OnlineTargets(networks, dataset.resolution)
    images = dataset.batch(torch.arange(len(dataset))).images
    tables = [cache_tokens(network, images).to(context.device) for network in networks]
    return ClassMeanTargets(tables, dataset.labels) if recipe.class_mean_targets else CachedTargets(tables)


def check_class_means(recipe: Recipe, networks: Sequence[Teacher], dataset: Dataset) -> None:
    """Refuses means of tokens over more images than are held in memory."""
    if recipe.class_mean_targets and not _fit_in_memory(networks, dataset):
        raise UserError(
            f"class_mean_targets needs the tokens of all images in memory, here "
            f"{_volume(networks, dataset) / 2**20:.0f} MiB; {IN_MEMORY // 2**20} MiB are allowed, and no mirrored "
            "images; use a smaller data set without flip"
        )


def _fit_in_memory(networks: Sequence[Teacher], dataset: Dataset) -> bool:
    # A mirrored image would meet the tokens of the unmirrored one.
    return _volume(networks, dataset) <= IN_MEMORY and not dataset.flip


def _volume(networks: Sequence[Teacher], dataset: Dataset) -> int:
    return sum(4 * len(dataset) * network.dim * network.tokens(dataset.resolution) for network in networks)


def _embedded(
    config: EmbeddedTeacherTraining, dataset: Dataset, context: RunContext
) -> tuple[EmbeddedTeacher, dict[str, Any]]:
    if config.folder is not None:
        network = EmbeddedTeacher.load(config.folder)
        return network, {"name": network.name, "folder": config.folder, **network.origin.get("figures", {})}
    folder = _teacher_folder(config, dataset, context)
    with one_maker(folder):
        if not (folder / "figures.json").exists():
            _train_teacher(config, dataset, context, folder)
    return EmbeddedTeacher.load(folder / "teacher"), json.loads((folder / "figures.json").read_text())


def embedded_at_hand(config: EmbeddedTeacherTraining, dataset: Dataset, context: RunContext) -> EmbeddedTeacher | None:
    """The embedded teacher of a run on these images, where it was saved or kept; nothing is trained."""
    if config.folder is not None:
        return EmbeddedTeacher.load(config.folder)
    folder = _teacher_folder(config, dataset, context)
    return EmbeddedTeacher.load(folder / "teacher") if (folder / "figures.json").exists() else None


def _teacher_folder(config: EmbeddedTeacherTraining, dataset: Dataset, context: RunContext) -> Path:
    return _cache_folder(context, "teacher", {"config": config.model_dump(mode="json"), "data": dataset.fingerprint})


def _train_teacher(config: EmbeddedTeacherTraining, dataset: Dataset, context: RunContext, folder: Path) -> None:
    """Trains, centres and saves the teacher, and measures what its tokens are worth."""
    began = time.monotonic()
    step = TeacherStep(
        config.architecture(dataset.channels, dataset.resolution),
        total_steps=config.steps,
        seed=config.seed,
        device=context.device,
        precision=context.precision,
        optimiser=config.optimiser,
    )
    loop = LoopConfig(steps=config.steps, batch_size=config.batch_size, checkpoint_every=config.steps)
    # Its step gathers nothing over processes: each of them does the whole of it.
    _pretrain("teacher", step, loop, config.seed, dataset, context, folder, among=World(0, 1, 0))
    seconds = time.monotonic() - began
    if is_main():
        sample = evenly_spaced(dataset, CENTRE_IMAGES)
        teacher = step.teacher(dataset.batch(part).images for part in sample.split(256))
        measured = dataset.batch(evenly_spaced(dataset, MEASURED_IMAGES))
        figures = degeneracy(cache_tokens(teacher, measured.images), measured.labels, teacher.centre)
        log.info("teacher:\n%s", describe(figures))
        teacher.save(folder / "teacher", {"data": dataset.fingerprint, "figures": figures})
        facts = {"name": teacher.name, "steps": config.steps, "seconds": round(seconds, 1), **figures}
        # Last, for this file says that the teacher beside it is whole.
        write_atomic(folder / "figures.json", json.dumps(facts, indent=2) + "\n")
    barrier()


@contextmanager
def one_maker(folder: Path) -> Iterator[None]:
    """Within the context nobody else makes ``folder``: one run of this machine at a time, its processes together."""
    # The main process holds the lock for all of its run; the barriers keep the others inside.
    with locked(folder.parent / f"{folder.name}.lock") if is_main() else nullcontext():
        barrier()
        yield
        barrier()


def _cache_folder(context: RunContext, kind: str, facts: Mapping[str, Any]) -> Path:
    # Sorted, so that a folder's name does not depend on the order of fields.
    text = json.dumps(facts, sort_keys=True)
    return context.runs / "cache" / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
