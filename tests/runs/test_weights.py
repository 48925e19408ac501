"""An autoencoder is found wherever it is, with the same weights and its own sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from errors import refused
from safetensors.torch import save_file

from repae.config import UserError
from repae.models.autoencoders import KLAutoencoder, KLConfig, TinyConfig
from repae.models.reference_keys import vae_to_reference
from repae.recipes.catalogue import find
from repae.recipes.recipe import Recipe
from repae.runs.weights import load_vae, newest_of, own_part, read_autoencoder, sizes_of
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.digest import weights_digest

SIZES = KLConfig(
    latent_channels=3, base_channels=32, channel_multipliers=(1, 2), blocks_per_level=1, attention_levels=(1,)
)


@pytest.fixture(scope="module")
def kl() -> KLAutoencoder:
    torch.manual_seed(0)
    return SIZES.build(3)


@pytest.mark.parametrize("form", ["diffusers", "safetensors", "reference", "wrapped"])
def test_a_kl_autoencoder_is_known_by_its_weights(form: str, kl: KLAutoencoder, tmp_path: Path) -> None:
    """Whatever the names are in the file, the sizes are read from it, and the digest is the same."""
    path = tmp_path / "vae.pt"
    if form == "diffusers":
        path = tmp_path
        kl.model.save_pretrained(path)
    elif form == "safetensors":
        path = tmp_path / "vae.safetensors"
        save_file(kl.state_dict(), path)
    else:
        state = vae_to_reference(kl.state_dict())
        torch.save({"state_dict": state} if form == "wrapped" else state, path)
    vae, _ = read_autoencoder(path)
    assert sizes_of(vae) == SIZES.model_dump(mode="json") and not vae.training
    assert weights_digest(vae) == weights_digest(kl)
    assert not any(parameter.requires_grad for parameter in vae.parameters())


class Part:
    """A part of a checkpoint as it is."""

    def __init__(self, state: dict[str, torch.Tensor], averaged: bool) -> None:
        self.state = {"module": state, "updates": 3} if averaged else state

    def state_dict(self) -> dict[str, object]:
        return dict(self.state)

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        raise AssertionError


def run(folder: Path, recipe: Recipe) -> dict[str, str]:
    """A run with two different autoencoders in its checkpoint; their digests by part."""
    live, averaged = (recipe.vae.build(1) for _ in range(2))
    parts = {"vae": Part(live.state_dict(), False), "ema_vae": Part(averaged.state_dict(), True)}
    meta = {"recipe": recipe.model_dump(mode="json"), "image_channels": 1}
    CheckpointStore(folder / "checkpoints").save(1, parts, meta)
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    return {"vae": weights_digest(live), "ema_vae": weights_digest(averaged)}


@pytest.mark.parametrize(
    ("name", "bundle", "part"),
    [("digits", "ema", "ema_vae"), ("digits", "reference", "vae"), ("digits", "live", "vae"),
     ("digits-vae", "reference", "ema_vae")],
)  # fmt: skip
def test_a_run_gives_the_autoencoder_of_its_own_bundle(name: str, bundle: str, part: str, tmp_path: Path) -> None:
    """What is sampled with is what is cached, and what a later run starts from."""
    recipe = find(name).replace(bundle=bundle)
    digests = run(tmp_path, recipe)
    assert own_part(*newest_of(tmp_path), 1) == part
    vae, _ = read_autoencoder(tmp_path)
    assert sizes_of(vae) == TinyConfig().model_dump(mode="json") and weights_digest(vae) == digests[part]
    later = TinyConfig().build(1)
    load_vae(later, tmp_path)
    assert weights_digest(later) == digests[part]


def test_what_is_no_autoencoder_is_refused(kl: KLAutoencoder, tmp_path: Path) -> None:
    """Nothing there, an unfinished run, and weights of something else."""
    with refused(UserError, tmp_path, "no autoencoder", "diffusion_pytorch_model.safetensors", "put the weights there"):
        read_autoencoder(tmp_path)
    (tmp_path / "recipe.yaml").write_text(find("digits").to_yaml())
    with refused(UserError, tmp_path, "has no checkpoint yet", f"`repae train {tmp_path / 'recipe.yaml'}`"):
        read_autoencoder(tmp_path)
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with refused(UserError, "autoencoder", "'encoder.conv_in.weight' is missing"):
        read_autoencoder(tmp_path / "other.safetensors")
    state = dict(list(kl.state_dict().items())[:-1])
    save_file(state, tmp_path / "half.safetensors")
    with refused(UserError, "KL autoencoder", "1 missing", "model.post_quant_conv.bias"):
        read_autoencoder(tmp_path / "half.safetensors")
    assert json.dumps(TinyConfig().model_dump())
