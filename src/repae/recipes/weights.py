"""An autoencoder from wherever it is: a run, a diffusers folder, or a file of the reference."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from repae.config import UserError, check
from repae.models.autoencoders import Autoencoder, KLAutoencoder, KLConfig, TinyConfig
from repae.models.reference_keys import kl_config_from_reference, vae_from_reference, vae_to_reference
from repae.recipes.recipe import Recipe
from repae.runtime.checkpoint import CheckpointStore
from repae.train.methods import VaeOnly
from repae.train.state import BUNDLES

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"


def load_vae(vae: Autoencoder, path: Path) -> None:
    """Gives ``vae`` the weights at ``path``, all of them or none.

    ``path`` is a run of this program (its newest checkpoint, the autoencoder of its own bundle), a diffusers
    ``AutoencoderKL`` folder, or a file (safetensors, or ``.pt`` holding nothing but tensors) with diffusers' or latent
    diffusion's names.

    Raises:
        UserError: there is nothing there, or it does not fit; the text names what is missing or too many.
    """
    state = _read(path)
    if isinstance(vae, KLAutoencoder):
        state = _kl_names(state)
    _give(vae, state, path)


def open_vae(path: Path) -> tuple[KLConfig | TinyConfig, Autoencoder]:
    """An autoencoder that is known by its files alone, with its sizes; in eval mode, on the CPU.

    Raises:
        UserError: as `load_vae`; or what is there is no run and no KL autoencoder.
    """
    if (path / "recipe.yaml").is_file():
        recipe, meta = Recipe.from_yaml(path / "recipe.yaml"), _newest(path)[1]
        config, state, channels = recipe.vae, _read(path), meta["image_channels"]
    else:
        state = _kl_names(_read(path))
        config, channels = kl_config_from_reference(vae_to_reference(state))
    vae = config.build(channels)
    _give(vae, state, path)
    return config, vae.eval().requires_grad_(False)


def _kl_names(state: dict[str, Any]) -> dict[str, Any]:
    """Names of a KL autoencoder here, from those of diffusers or of latent diffusion."""
    if any(name.startswith("model.") for name in state):
        return state
    if any(name.startswith("encoder.down.") for name in state):
        return vae_from_reference(state)
    return {f"model.{name}": tensor for name, tensor in state.items()}


def _give(vae: Autoencoder, state: dict[str, Any], path: Path) -> None:
    own = vae.state_dict()
    wrong = [f"missing {name}" for name in own.keys() - state.keys()]
    wrong += [f"unexpected {name}" for name in state.keys() - own.keys()]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & state.keys()
        if own[name].shape != state[name].shape
    ]
    if wrong:
        raise UserError(
            f"{path} does not hold the weights of this autoencoder: {'; '.join(sorted(wrong)[:4])}"
            f"{f'; and {len(wrong) - 4} more' if len(wrong) > 4 else ''}; choose the vae that they belong to"
        )
    vae.load_state_dict(state)


def vae_part(recipe: Recipe) -> str:
    """The part of a run's checkpoints that holds the autoencoder of its own bundle."""
    return "ema_vae" if isinstance(recipe.method, VaeOnly) else BUNDLES[recipe.bundle][1]


def _newest(path: Path) -> tuple[Path, dict[str, Any]]:
    """The newest checkpoint of a run, and what it says of itself."""
    store = CheckpointStore(path / "checkpoints")
    newest = store.latest()
    if newest is None:
        raise UserError(f"{path} is a run without a checkpoint; train it first")
    return newest, store.describe(newest).meta


def _read(path: Path) -> dict[str, Any]:
    if (path / "checkpoints").is_dir():
        newest, meta = _newest(path)
        part = vae_part(check(Recipe, meta["recipe"], str(newest))) if "recipe" in meta else "vae"
        state = CheckpointStore(path / "checkpoints").read(newest, part)
        return state["module"] if part.startswith("ema_") else state
    file = path / DIFFUSERS_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(
            f"{path} holds no autoencoder: allowed are a run, a folder with {DIFFUSERS_FILE}, a .safetensors or a .pt "
            "file; put the weights there or set start.path to where they are"
        )
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise UserError(f"{file} cannot be read as weights: {str(error).splitlines()[0]}") from None
    return state.get("state_dict", state)
