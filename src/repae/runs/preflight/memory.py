"""How much memory a step keeps for its backward pass: counted on the meta device, an estimate on a real one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from repae.models.autoencoders import Autoencoder
from repae.models.denoiser import Denoiser
from repae.models.teachers.base import Teacher
from repae.recipes.recipe import LpipsPerceptual, Recipe, TeacherPerceptual
from repae.training.frozen import frozen
from repae.training.state import Players

HALF_VAE, HALF_BACKBONE = 0.87, 0.60
"""What half precision leaves of the float32 volume, counted under autocast on the published sizes."""

LPIPS_BYTES_PER_PIXEL = 2441
"""Kept by the VGG16 of LPIPS in float32: 160 MB for an image of 256 px."""


def activations(recipe: Recipe, players: Players, teachers: Sequence[Teacher], resolution: int) -> float:
    """Bytes that the larger half of a step keeps for its backward pass, for one image."""
    half = recipe.runtime.precision != "fp32"
    share = HALF_BACKBONE if half else 1.0
    denoiser = alignment = 0.0
    if players.denoiser is not None:
        denoiser, alignment = (share * volume for volume in _of_denoiser(players.denoiser))
    traits = recipe.method.traits
    if not traits.reconstructs:
        return denoiser
    vae = (HALF_VAE if half else 1.0) * _of_vae(players.vae, resolution)
    vae += _of_loss_networks(recipe, players, teachers, resolution)
    if traits.end_to_end:
        return vae + denoiser
    # Two backward passes in turn: what the first one kept is free before the second begins.
    return max(vae + alignment, denoiser)


def _of_vae(vae: Autoencoder, resolution: int) -> float:
    side = resolution // vae.factor
    with torch.device("meta"):
        pixels = torch.empty(1, vae.image_channels, resolution, resolution)
        noise = torch.empty(1, vae.latent_channels, side, side)
    return saved_bytes(lambda: vae(pixels, noise).reconstruction, vae)


def _of_denoiser(denoiser: Denoiser) -> tuple[float, float]:
    """Of the training pass, and of the alignment pass, which trains only what comes before it."""
    config = denoiser.backbone.config
    with torch.device("meta"):
        latent = torch.empty(1, config.in_channels, config.input_size, config.input_size)
        t, y = torch.empty(1), torch.zeros(1, dtype=torch.int64)
    full = saved_bytes(lambda: denoiser(latent, t, y)[0], denoiser)
    if not denoiser.projectors:
        return full, 0.0
    with frozen(denoiser):
        return full, saved_bytes(lambda: denoiser.project(latent.requires_grad_(), t, y)[0], denoiser)


def _of_loss_networks(recipe: Recipe, players: Players, teachers: Sequence[Teacher], resolution: int) -> float:
    """Of the discriminator and of the perceptual network, both in float32."""
    discriminator = players.discriminator
    with torch.device("meta"):
        image = torch.empty(1, players.vae.image_channels, resolution, resolution, requires_grad=True)
    volume = 0.0
    if discriminator is not None:
        with frozen(discriminator):
            volume += saved_bytes(lambda: discriminator(image), discriminator)
    if isinstance(recipe.perceptual, LpipsPerceptual):
        volume += LPIPS_BYTES_PER_PIXEL * resolution**2 * (0.5 if recipe.perceptual.precision == "bf16" else 1.0)
    if isinstance(recipe.perceptual, TeacherPerceptual) and teachers:
        volume += saved_bytes(lambda: teachers[0].features(image)[-1], teachers[0])
    return volume


def saved_bytes(run: Callable[[], Tensor], module: nn.Module) -> float:
    """Bytes of what autograd keeps for the backward pass of ``run``, each memory once, ``module``'s weights not at all.

    Counted in the precision of ``module``, by running it: on the meta device that costs nothing.
    """
    # A storage is known by its address, and stays alive here so that no other one takes that address.
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_address(tensor)] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = run()
    own = {_address(tensor) for tensor in (*module.parameters(), *module.buffers())}
    del result
    return float(sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own))


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata
