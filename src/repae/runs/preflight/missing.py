"""What a recipe needs that is not at hand, and what to do about it, before the first second of training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from repae.config import UserError
from repae.models.autoencoders import DiffusersConfig
from repae.models.autoencoders.diffusers import WEIGHTS_FILE
from repae.models.teachers.catalogue import Entry, entry_of
from repae.recipes.recipe import EmbeddedTeacherTraining, FromPublished, FromRun, FromWeights, Recipe
from repae.runs.perceptual import perceptual_files
from repae.runtime.device import pick_device
from repae.training.setup import Vae


def missing(recipe: Recipe) -> Iterator[str]:
    """One line for each thing that is not here: what it is, where it was looked for, what to do."""
    yield from recipe.data.missing()
    yield from missing_latents(recipe)
    yield from _missing_teachers(recipe)
    yield from _missing_weights(recipe)
    yield from _missing_device(recipe)


def missing_latents(recipe: Recipe) -> Iterator[str]:
    """The cached latents, where a recipe names some."""
    if recipe.latents is not None and not Path(recipe.latents.path).expanduser().exists():
        path = recipe.latents.path
        yield (
            f"latents: there is nothing at {path}; make them with `repae cache VAE --data DATA --out {path}`, say "
            "where they are with --latents.path PATH, or train from the images: --latents none"
        )


def _missing_teachers(recipe: Recipe) -> Iterator[str]:
    for position, config in enumerate(recipe.teachers):
        option = f"--teachers.{position}"
        if isinstance(config, EmbeddedTeacherTraining):
            if config.folder is not None and not Path(config.folder).is_dir():
                yield f"teacher: there is no folder {config.folder}; leave {option}.folder out to train one"
        elif config.weights is not None and not Path(config.weights).is_file():
            yield f"teacher {config.name}: there is no file {config.weights}; give {option}.weights FILE"
        elif config.weights is None:
            yield from _missing_teacher(entry_of(config.name), option)


def _missing_teacher(entry: Entry, option: str) -> Iterator[str]:
    """What to do about the weights of a teacher that are not on this machine."""
    if not entry.downloads:
        yield (
            f"teacher {entry.name}: its weights are not on the hub; fetch {entry.where} and give {option}.weights FILE"
        )
    elif not _is_here(entry.model):
        where = f" ({entry.where})" if entry.where else ""
        asks = f"; its authors' files are gated: {entry.terms}" if entry.gated else ""
        yield (
            f"teacher {entry.name}: its weights are not here yet and are fetched when the run starts; without a "
            f"connection, fetch its model.safetensors or .pth elsewhere{where} and give {option}.weights FILE{asks}"
        )


def _is_here(model: str) -> bool:
    """Whether the weights of a timm model lie in the hub's cache, or in torch's where they come from the authors."""
    from huggingface_hub import try_to_load_from_cache
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(model)
    if known is None or not known.hf_hub_id:
        url = "" if known is None else str(known.url or "")
        return bool(url) and (Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]).is_file()
    files = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(known.hf_hub_id, file), str) for file in files)


def _missing_weights(recipe: Recipe) -> Iterator[str]:
    if isinstance(recipe.start, FromWeights) and not Path(recipe.start.path).exists():
        yield (
            f"vae: there are no weights at {recipe.start.path}; put them there (a diffusers folder, safetensors or the "
            "reference's .pt), or say where they are with --start.path PATH, or begin without: --start.kind scratch"
        )
    if isinstance(recipe.start, FromPublished):
        yield from _missing_published(recipe.vae)
    if isinstance(recipe.start, FromRun) and not Path(recipe.start.path).is_dir():
        yield f"start: there is no folder {recipe.start.path}; name a run, an import or an exported folder"
    given = None if recipe.discriminator is None else recipe.discriminator.weights
    if given is not None and not Path(given).exists():
        yield (
            f"discriminator: there are no weights at {given}; put them there, or say where they are with "
            "--discriminator.weights PATH, or begin without: --discriminator.weights none"
        )
    for option, name, path in perceptual_files(recipe):
        if path is not None and not Path(path).is_file():
            yield f"perceptual: there is no file {path}; give --{option} FILE"
        elif path is None and not _is_here(name):
            yield (
                f"perceptual: the weights of {name} are not here yet and come from the hub when the run starts; "
                f"without a connection, fetch its model.safetensors elsewhere and give --{option} FILE"
            )


def _missing_published(vae: Vae) -> Iterator[str]:
    from huggingface_hub import try_to_load_from_cache

    assert isinstance(vae, DiffusersConfig) and vae.path is not None, vae
    file = f"{vae.subfolder}/{WEIGHTS_FILE}" if vae.subfolder else WEIGHTS_FILE
    if Path(vae.path).is_dir() or isinstance(try_to_load_from_cache(vae.path, file), str):
        return
    yield (
        f"vae: {vae.path} is not here yet and comes from the hub when the run starts; without a connection, or where "
        "its licence must be accepted first, fetch its folder elsewhere and give --vae.path FOLDER and --vae.subfolder "
        "none, or begin without: --start.kind scratch"
    )


def _missing_device(recipe: Recipe) -> Iterator[str]:
    try:
        pick_device(recipe.runtime.device)
    except UserError as error:
        yield f"device: {error}"
