"""The preflight: every reason why a recipe cannot start, in seconds, before a folder is made or anything is trained.

It is the one place that decides. `repae train` refuses on what it finds, `repae train --dry-run` prints it. Each rule
stands where it is used at the start (the loader's, the checkpoint's, the network's) and is asked here first.

What must be fetched from the hub does not block: whether the hub can be reached is known when it is asked. With
HF_HUB_OFFLINE set it is known, and blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from repae.config import Config, UserError
from repae.data import Dataset
from repae.evaluation.settings import EvaluationConfig
from repae.recipes.recipe import FromRun, FromWarmup, Recipe
from repae.runs.cached_latents import RunLatents, open_latents
from repae.runs.context import check_writable
from repae.runs.identity import check_same_run
from repae.runs.players import check_class_means, check_published_statistics
from repae.runs.preflight.files import check_autoencoder, check_discriminator, check_distance, check_teachers
from repae.runs.preflight.problems import Findings, Problem, refusal
from repae.runs.preflight.rehearsal import DataFacts, Rehearsal, rehearse
from repae.runtime.device import pick_device
from repae.runtime.launch import read_launch
from repae.runtime.precision import Precision
from repae.runtime.seeds import Share


@dataclass(frozen=True)
class Preflight:
    """What was found, and what was opened to find it.

    Attributes:
        recipe: with the autoencoder's architecture in it, as far as it can be had.
        problems: all of them, also those that do not block.
        facts: of the images.
        dataset: the images; None where they are not at hand.
        latents: the cached ones, where the recipe names some and they are its images'.
        rehearsal: the networks on the meta device; None where sizes do not fit.
    """

    recipe: Recipe
    problems: tuple[Problem, ...]
    facts: DataFacts
    dataset: Dataset | None
    latents: RunLatents | None
    rehearsal: Rehearsal | None

    def images(self) -> Dataset:
        """The data of a recipe that can start; one that cannot is refused with every problem that blocks it."""
        if blocking := [problem for problem in self.problems if problem.blocks]:
            raise refusal(blocking)
        assert self.dataset is not None
        return self.dataset


def preflight(recipe: Recipe, runs: Path | None = None) -> Preflight:
    """Holds ``recipe`` against itself, this machine, the data and the weights at hand.

    Args:
        recipe: what is to be trained.
        runs: the folder of runs, where it is known: another run in ``runs/NAME`` is a problem too.
    """
    found = Findings()
    with found.part("vae"):
        recipe = recipe.resolved()
    resolved = not found.problems
    if runs is not None:
        with found.part("folder"):
            check_writable(runs / recipe.name)
            check_same_run(recipe, runs / recipe.name)
    _check_machine(recipe, found)
    dataset = _open_data(recipe, found)
    facts = DataFacts.of(recipe, dataset)
    latents = _open_latents(recipe, dataset, found)
    if latents is None or not latents.cached:  # cached tokens stand for their teachers
        check_teachers(recipe, dataset, found)
    check_distance(recipe, found)
    check_discriminator(recipe, facts.channels, found)
    rehearsal = None
    if resolved:
        with found.part("sizes"):
            rehearsal = rehearse(recipe, facts)
    if rehearsal is not None:
        classes = None if dataset is None else dataset.num_classes
        _check_players(recipe, rehearsal, dataset, latents, found)
        check_autoencoder(recipe, rehearsal.players.vae, classes, found)
    return Preflight(recipe, tuple(found.problems), facts, dataset, latents, rehearsal)


def _check_machine(recipe: Recipe, found: Findings) -> None:
    with found.part("runtime"):
        Precision(recipe.runtime.precision, pick_device(recipe.runtime.device))
    size = 1
    with found.part("runtime"):
        launch = read_launch()
        size = 1 if launch is None else launch.size
    with found.part("loop"):
        Share(0, recipe.loop.accumulate, 0, size).positions(recipe.loop.batch_size)
    if isinstance(recipe.start, FromWarmup):
        with found.part("start"):
            Share(0, 1, 0, size).positions(recipe.start.batch_size)
    for package, wanted in (("wandb", recipe.track.wandb), ("tensorboard", recipe.track.tensorboard)):
        if wanted and find_spec(package) is None:
            found.add("track", f"{package} is not installed; pip install {package}, or set track.{package} to false")
    if recipe.evaluation.every is not None:
        _check_evaluation(recipe.evaluation, found)


def _check_evaluation(settings: EvaluationConfig, found: Findings) -> None:
    """Networks with which a run is evaluated while it trains: a missing one would end it hours later."""
    networks: dict[str, Config] = {f"features.{number}": config for number, config in enumerate(settings.features)}
    if settings.lpips is not None:
        networks["lpips"] = settings.lpips
    for option, config in networks.items():
        for name, path in config.model_dump(include={"weights", "folder"}, exclude_none=True).items():
            if not Path(path).expanduser().exists():
                found.add("evaluation", f"there is nothing at {path}; give --evaluation.{option}.{name} PATH")


def _open_data(recipe: Recipe, found: Findings) -> Dataset | None:
    if gone := list(recipe.data.missing()):
        for text in gone:
            found.add("data", text)
        return None
    dataset = None
    with found.part("data"):
        dataset = recipe.data.open()
        if recipe.num_classes not in (None, dataset.num_classes):
            raise UserError(
                f"num_classes is {recipe.num_classes}, the data has {dataset.num_classes} classes; "
                "leave num_classes out to take the data's, or point data.path at the right folder"
            )
    return dataset


def _open_latents(recipe: Recipe, dataset: Dataset | None, found: Findings) -> RunLatents | None:
    if recipe.latents is None:
        return None
    path = recipe.latents.path
    if not Path(path).expanduser().exists():
        found.add(
            "latents",
            f"there is nothing at {path}; make them with `repae cache VAE --data DATA --out {path}`, say "
            "where they are with --latents.path PATH, or train from the images: --latents none",
        )
        return None
    latents = None
    if dataset is not None:
        with found.part("latents"):
            latents = open_latents(recipe, dataset)
    return latents


def _check_players(
    recipe: Recipe, rehearsal: Rehearsal, dataset: Dataset | None, latents: RunLatents | None, found: Findings
) -> None:
    if dataset is not None:
        with found.part("class_mean_targets"):
            check_class_means(recipe, rehearsal.teachers, dataset)
    # Whoever starts from a run or reads cached latents has statistics already.
    generates = rehearsal.players.denoiser is not None
    if generates and latents is None and not isinstance(recipe.start, FromRun):
        with found.part("latent_norm"):
            check_published_statistics(recipe, rehearsal.players.vae)
