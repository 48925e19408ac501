"""What a discriminator starts from: random weights, or those that another run or the reference has trained."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from repae.config import UserError
from repae.models.discriminator import PatchGAN
from repae.models.reference_keys import discriminator_from_reference
from repae.models.weight_files import check_coverage, read_weights
from repae.recipes.recipe import Recipe
from repae.runtime.checkpoint import CheckpointStore

WHAT = "discriminator.weights"


def discriminator_weights(recipe: Recipe, image_channels: int) -> dict[str, Tensor] | None:
    """The weights that the recipe's discriminator starts from; None where they are random.

    Raises:
        UserError: nothing there, weights of another discriminator, or no discriminator that counts to give them to.
    """
    config = recipe.discriminator
    if config is None or config.weights is None or "discriminator" not in recipe.method.traits.players:
        return None
    if recipe.losses.discriminator_weight == 0 or recipe.losses.discriminator_factor == 0:
        raise UserError(
            f"{WHAT} is {config.weights!r}, but no discriminator takes part: its weight or factor in losses is 0; "
            f"leave {WHAT} out, or give losses.discriminator_weight a value above 0"
        )
    path = Path(config.weights)
    state = discriminator_from_reference(_read(path))
    with torch.device("meta"):
        # Only names and shapes are compared, so no memory is needed.
        own = PatchGAN(config.patch_gan(image_channels)).state_dict()
    check_coverage(own, state, f"{WHAT}: {path} does not hold them", "give the right file")
    return state


def _read(path: Path) -> dict[str, Tensor]:
    if not (path / "checkpoints").is_dir():
        return read_weights(path, WHAT)
    store = CheckpointStore(path / "checkpoints")
    return store.read(store.newest(), "discriminator")
