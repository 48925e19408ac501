"""An autoencoder's weights from wherever they are: a run, a folder of diffusers, or a file of the reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from repae.config import UserError, check
from repae.export.folders import WEIGHTS, read_vae, renamed_attention
from repae.models.autoencoders import (
    Autoencoder,
    DiffusersAutoencoder,
    DiffusersConfig,
    KLAutoencoder,
    TinyAutoencoder,
)
from repae.models.latent_norm import LatentNorm
from repae.models.reference_keys import kl_config_from_reference, vae_from_reference, vae_to_reference
from repae.models.weight_files import fit, read_weights
from repae.recipes.recipe import Recipe
from repae.runtime.checkpoint import CheckpointStore
from repae.training.build import build_vae
from repae.training.state import BUNDLES


def load_vae(vae: Autoencoder, path: Path) -> None:
    """Gives ``vae`` the weights at ``path``, all of them or none.

    ``path`` is a run of this program (the autoencoder of its own bundle in the newest checkpoint), an exported folder,
    a diffusers ``AutoencoderKL`` folder, or a file (safetensors, or ``.pt`` holding nothing but tensors) with
    diffusers' or latent diffusion's names.

    Raises:
        UserError: there is nothing there, or it does not fit; the text names what is missing or too many.
    """
    state = _read(path)
    if isinstance(vae, (KLAutoencoder, DiffusersAutoencoder)):
        state = _kl_names(state)
    fit(vae, state, f"{path} does not hold the weights of this autoencoder", "choose the vae that they belong to")


def read_autoencoder(path: Path) -> tuple[Autoencoder, LatentNorm | None]:
    """The autoencoder at ``path``, whatever its sizes, and its statistics where they are there.

    ``path`` is as for `load_vae`; a bare file must be of a KL autoencoder, whose sizes its weights show.

    Raises:
        UserError: there is nothing there, or nothing whose sizes are known.
    """
    if (path / "checkpoints").is_dir():
        return _of_run(path)
    if path.is_dir():
        folder = _folder_of_weights(path)
        if (folder / WEIGHTS).is_file():
            return read_vae(folder)
        return _of_run(path) if (path / "recipe.yaml").is_file() else _refuse(path)
    state = _kl_names(_read(path))
    config, channels = kl_config_from_reference(vae_to_reference(state))
    vae = config.build(channels)
    fit(vae, state, f"{path} does not hold the weights of a KL autoencoder", "give a diffusers folder, or another file")
    return vae.eval().requires_grad_(False), None


def sizes_of(vae: Autoencoder) -> dict[str, Any]:
    """What an autoencoder was built from, as a recipe's ``vae`` says it."""
    if isinstance(vae, DiffusersAutoencoder):
        architecture = {name: value for name, value in vae.model.config.items() if not name.startswith("_")}
        named = {"_class_name": type(vae.model).__name__, **architecture}
        return DiffusersConfig(architecture=named).model_dump(mode="json")
    assert isinstance(vae, (KLAutoencoder, TinyAutoencoder)), type(vae)
    return vae.config.model_dump(mode="json")


def _kl_names(state: dict[str, Any]) -> dict[str, Any]:
    """Names of a KL autoencoder here, from those of diffusers or of latent diffusion."""
    if any(name.startswith("model.") for name in state):
        return state
    if any(name.startswith("encoder.down.") for name in state):
        return vae_from_reference(state)
    return {f"model.{name}": tensor for name, tensor in renamed_attention(state).items()}


def own_part(store: CheckpointStore, checkpoint: Path, position: int) -> str | None:
    """Which part of the run's own bundle is its denoiser (0), autoencoder (1) or statistics (2); None without one."""
    present = {file.stem for file in checkpoint.glob("*.safetensors")}
    meta = store.describe(checkpoint).meta
    if "recipe" not in meta:  # a preparatory training, which averages into "ema_" parts that nobody samples from
        chosen = BUNDLES["live"][position]
    else:
        recipe = check(Recipe, meta["recipe"], str(checkpoint))
        chosen = BUNDLES[recipe.own_bundle][position]
        if not recipe.method.traits.generates and chosen not in present:
            chosen = BUNDLES["live"][position]
    return chosen if chosen in present else None


def read_part(store: CheckpointStore, checkpoint: Path, part: str) -> dict[str, Any]:
    """The state of a module of a checkpoint, average or not."""
    state = store.read(checkpoint, part)
    return state["module"] if part.startswith("ema_") else state


def newest_of(run: Path) -> tuple[CheckpointStore, Path]:
    """The checkpoints of a run, and the newest of them; a run without any is refused."""
    store = CheckpointStore(run / "checkpoints")
    return store, store.newest()


def _of_run(path: Path) -> tuple[Autoencoder, LatentNorm | None]:
    store, newest = newest_of(path)
    meta = store.describe(newest).meta
    recipe = check(Recipe, meta["recipe"], str(newest))
    vae = build_vae(recipe, meta["image_channels"])
    vae.load_state_dict(_read(path))
    norm, norm_part = None, own_part(store, newest, 2)
    if norm_part is not None:
        norm = LatentNorm(vae.latent_channels, eps=recipe.latent_norm.eps, momentum=recipe.latent_norm.momentum)
        norm.load_state_dict(read_part(store, newest, norm_part))
        norm.eval()
    return vae.eval().requires_grad_(False), norm


def _folder_of_weights(path: Path) -> Path:
    """The folder itself, or its autoencoder's where it is a pipeline's."""
    return path / "vae" if (path / "vae" / WEIGHTS).is_file() else path


def _read(path: Path) -> dict[str, Any]:
    if (path / "checkpoints").is_dir():
        store, newest = newest_of(path)
        part = own_part(store, newest, 1)
        if part is None:
            _refuse(path)
        return read_part(store, newest, part)
    file = _folder_of_weights(path) / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        _refuse(path)
    return read_weights(file, "autoencoder")


def _refuse(path: Path) -> NoReturn:
    raise UserError(
        f"{path} holds no autoencoder; allowed: a run with one, a folder with {WEIGHTS}, a .safetensors or a .pt "
        "file; put the weights there, or say where they are"
    )
