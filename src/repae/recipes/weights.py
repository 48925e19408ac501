"""An autoencoder's weights from wherever they are: a run, a diffusers folder, or a file of the reference."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from repae.config import UserError
from repae.models.autoencoders import Autoencoder, DiffusersAutoencoder, KLAutoencoder
from repae.models.reference_keys import vae_from_reference
from repae.runtime.checkpoint import CheckpointStore

DIFFUSERS_FILE = "diffusion_pytorch_model.safetensors"


def load_vae(vae: Autoencoder, path: Path) -> None:
    """Gives ``vae`` the weights at ``path``, all of them or none.

    ``path`` is a run of this program (its newest checkpoint), a diffusers ``AutoencoderKL`` folder, or a file
    (safetensors, or ``.pt`` holding nothing but tensors) with diffusers' or latent diffusion's names.

    Raises:
        UserError: there is nothing there, or it does not fit; the text names what is missing or too many.
    """
    state = _read(path)
    if isinstance(vae, (KLAutoencoder, DiffusersAutoencoder)) and not any(name.startswith("model.") for name in state):
        if any(name.startswith("encoder.down.") for name in state):
            state = vae_from_reference(state)
        else:
            state = {f"model.{name}": tensor for name, tensor in state.items()}
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


def _read(path: Path) -> dict[str, Any]:
    if (path / "checkpoints").is_dir():
        store = CheckpointStore(path / "checkpoints")
        newest = store.latest()
        if newest is None:
            raise UserError(f"{path} is a run without a checkpoint; train it first")
        return store.read(newest, "vae")
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
