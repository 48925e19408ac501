"""The weights that a recipe names: whether they are here, and whether they fit where they will be loaded."""

from __future__ import annotations

from pathlib import Path

import torch

from repae.data import Dataset
from repae.models.autoencoders import Autoencoder, DiffusersConfig
from repae.models.autoencoders.diffusers import WEIGHTS_FILE
from repae.models.perceptual import ConvNextLogits, LpipsNetwork
from repae.models.teachers.catalogue import Entry, entry_of
from repae.models.teachers.embedded import EmbeddedTeacher
from repae.models.teachers.timm import TimmTeacher
from repae.recipes.recipe import (
    EmbeddedTeacherTraining,
    FromPublished,
    FromRun,
    FromWeights,
    LpipsConvnextPerceptual,
    LpipsPerceptual,
    Recipe,
)
from repae.runs.discriminator import discriminator_weights
from repae.runs.perceptual import check_perceptual, perceptual_files
from repae.runs.preflight.problems import Findings
from repae.runs.start import check_start
from repae.runs.weights import load_vae
from repae.training.setup import Vae


def check_teachers(recipe: Recipe, dataset: Dataset | None, found: Findings) -> None:
    """Teachers that are trained for the run need nothing; all others need weights."""
    for position, config in enumerate(recipe.teachers):
        option = f"--teachers.{position}"
        if isinstance(config, EmbeddedTeacherTraining):
            _check_embedded(config, option, dataset, found)
            continue
        part = f"teacher {config.name}"
        if config.weights is None:
            _check_fetched(entry_of(config.name), option, found)
        elif not Path(config.weights).is_file():
            found.add(part, f"there is no file {config.weights}; give {option}.weights FILE")
        else:
            with found.part(part):
                TimmTeacher(config)


def _check_embedded(config: EmbeddedTeacherTraining, option: str, dataset: Dataset | None, found: Findings) -> None:
    if config.folder is None:
        return
    if not Path(config.folder).is_dir():
        found.add("teacher", f"there is no folder {config.folder}; leave {option}.folder out to train one")
        return
    with found.part("teacher"):
        teacher = EmbeddedTeacher.load(config.folder)
        if dataset is not None:
            teacher(torch.zeros(1, dataset.channels, dataset.resolution, dataset.resolution, dtype=torch.uint8))


def _check_fetched(entry: Entry, option: str, found: Findings) -> None:
    part = f"teacher {entry.name}"
    if not entry.downloads:
        found.add(part, f"its weights are not on the hub; fetch {entry.where} and give {option}.weights FILE")
        return
    where = f" ({entry.where})" if entry.where else ""
    asks = f"; its authors' files are gated: {entry.terms}" if entry.gated else ""
    _check_hub(
        entry.model, part, f"fetch its model.safetensors or .pth elsewhere{where} and give {option}.weights FILE{asks}",
        found,
    )  # fmt: skip


def _check_hub(model: str, part: str, otherwise: str, found: Findings) -> None:
    """Whether the weights of a timm model lie in the hub's cache, or in torch's where they come from the authors.

    Whether the hub can be reached is known only when somebody asks it, which takes longer than a preflight may; that
    it must not be asked is known.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(model)
    offline = bool(constants.HF_HUB_OFFLINE) and known is not None and bool(known.hf_hub_id)
    if known is not None and known.hf_hub_id:
        files = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
        here = any(isinstance(try_to_load_from_cache(known.hf_hub_id, file), str) for file in files)
    else:
        url = "" if known is None else str(known.url or "")
        here = bool(url) and (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file()
    if not here:
        _note_fetch(part, f"the weights of {model} are not here", otherwise, found, offline=offline)


def _note_fetch(part: str, what: str, otherwise: str, found: Findings, *, offline: bool) -> None:
    if offline:
        found.add(part, f"{what}, and HF_HUB_OFFLINE forbids to fetch them; unset it, or {otherwise}")
    else:
        text = f"{what} yet and are fetched from the hub when the run starts; without a connection, {otherwise}"
        found.add(part, text, blocks=False)


def check_autoencoder(recipe: Recipe, vae: Autoencoder, num_classes: int | None, found: Findings) -> None:
    """What the autoencoder starts from, and the other players with it where that is a run.

    Args:
        recipe: resolved.
        vae: the recipe's, on the meta device; weights that are here are tried on it.
        num_classes: of the data, where they are here.
        found: what is wrong.
    """
    start = recipe.start
    if isinstance(start, FromPublished):
        _check_published(recipe.vae, found)
    elif isinstance(start, FromWeights):
        if not Path(start.path).exists():
            found.add(
                "vae",
                f"there are no weights at {start.path}; put them there (a diffusers folder, safetensors or the "
                "reference's .pt), or say where they are with --start.path PATH, or begin without: "
                "--start.kind scratch",
            )
            return
        with found.part("vae"):
            load_vae(vae, Path(start.path))
    elif isinstance(start, FromRun):
        with found.part("start"):
            check_start(recipe, num_classes)
            load_vae(vae, Path(start.path))


def _check_published(config: Vae, found: Findings) -> None:
    from huggingface_hub import constants, try_to_load_from_cache

    assert isinstance(config, DiffusersConfig) and config.path is not None, config
    if Path(config.path).is_dir():
        with found.part("vae"):
            config.weights()
        return
    file = f"{config.subfolder}/{WEIGHTS_FILE}" if config.subfolder else WEIGHTS_FILE
    if not isinstance(try_to_load_from_cache(config.path, file), str):
        _note_fetch(
            "vae",
            f"the weights of {config.path} are not here",
            "or where its licence must be accepted first, fetch its folder elsewhere and give --vae.path FOLDER and "
            "--vae.subfolder none, or begin without: --start.kind scratch",
            found,
            offline=bool(constants.HF_HUB_OFFLINE),
        )


def check_discriminator(recipe: Recipe, image_channels: int, found: Findings) -> None:
    """The weights that the discriminator starts from."""
    given = None if recipe.discriminator is None else recipe.discriminator.weights
    if given is not None and not Path(given).exists():
        found.add(
            "discriminator",
            f"there are no weights at {given}; put them there, or say where they are with "
            "--discriminator.weights PATH, or begin without: --discriminator.weights none",
        )
        return
    with found.part("discriminator"):
        discriminator_weights(recipe, image_channels)


def check_distance(recipe: Recipe, found: Findings) -> None:
    """The perceptual term: somebody must be able to compute it."""
    with found.part("perceptual"):
        check_perceptual(recipe)
    gone, config = False, recipe.perceptual
    for option, name, path in perceptual_files(recipe):
        if path is None:
            _check_hub(name, "perceptual", f"fetch its model.safetensors elsewhere and give --{option} FILE", found)
        elif not Path(path).is_file():
            gone = True
            found.add("perceptual", f"there is no file {path}; give --{option} FILE")
    if gone or not any(perceptual_files(recipe)):
        return
    assert isinstance(config, LpipsPerceptual), config
    with found.part("perceptual"):
        if config.vgg is not None:
            LpipsNetwork(Path(config.vgg), None if config.linear is None else Path(config.linear))
        if isinstance(config, LpipsConvnextPerceptual) and config.convnext is not None:
            ConvNextLogits(Path(config.convnext))
