"""What is used together to make images: a denoiser, the autoencoder and the statistics that belong to it."""

from __future__ import annotations

from typing import TypeVar

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from repae.config import UserError
from repae.models.autoencoders.base import Autoencoder
from repae.models.backbones.base import Labels, Latents, Times
from repae.models.denoiser import Denoiser
from repae.models.latent_norm import LatentNorm
from repae.models.pixels import reconstruct, to_levels, to_symmetric
from repae.runtime.modes import evaluating

Part = TypeVar("Part")


class Bundle:
    """A denoiser with the autoencoder and the latent statistics that it is used with, under one name.

    Where a method trains no denoiser, the autoencoder stands alone: it reconstructs and encodes, and whatever needs the
    denoiser or the statistics is refused.

    Everything here runs without gradients and in eval mode; each module's own mode is restored afterwards, so a bundle
    of live modules can be used between two training steps.

    Raises:
        UserError: the parts disagree about the channels of a latent.
    """

    def __init__(self, name: str, denoiser: Denoiser | None, vae: Autoencoder, latent_norm: LatentNorm | None) -> None:
        assert (denoiser is None) == (latent_norm is None), (
            "statistics belong to the denoiser that was trained with them"
        )
        self.name = name
        self.vae = vae
        self._denoiser = denoiser
        self._latent_norm = latent_norm
        if denoiser is None or latent_norm is None:
            return
        channels = (vae.latent_channels, latent_norm.channels, denoiser.backbone.config.in_channels)
        if len(set(channels)) > 1:
            raise UserError(
                f"bundle {name!r}: autoencoder, latent normaliser and denoiser have {channels[0]}, {channels[1]} and "
                f"{channels[2]} latent channels; they must agree: take them from one run, or set "
                "the backbone's in_channels"
            )

    @property
    def generates(self) -> bool:
        """Whether images can be sampled from it."""
        return self._denoiser is not None

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser; `UserError` where there is none."""
        return self._there(self._denoiser)

    @property
    def latent_norm(self) -> LatentNorm:
        """The statistics; `UserError` where there are none."""
        return self._there(self._latent_norm)

    def _there(self, part: Part | None) -> Part:
        if part is None:
            raise UserError(
                f"bundle {self.name!r} is an autoencoder alone; it has no denoiser; give a run that trains one"
            )
        return part

    @property
    def device(self) -> torch.device:
        """Where the autoencoder is, and with it the rest."""
        return next(self.vae.parameters()).device

    def to(self, device: str | torch.device) -> None:
        """Moves all weights and statistics."""
        for module in (self._denoiser, self.vae, self._latent_norm):
            if module is not None:
                module.to(device)

    @property
    def null_label(self) -> int | None:
        """The label that stands for "no class", or None where the model has none."""
        return self.denoiser.backbone.config.null_label

    @property
    def num_classes(self) -> int:
        return self.denoiser.backbone.config.num_classes

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        config = self.denoiser.backbone.config
        return config.in_channels, config.input_size, config.input_size

    @property
    def image_channels(self) -> int:
        return self.vae.image_channels

    @torch.no_grad()
    def velocity(self, x: Latents, t: Times, y: Labels) -> Latents:
        """Velocity at normalised latents ``x``; no label is dropped."""
        # In train mode the backbone drops labels: equal inputs would give unequal images.
        with evaluating(self.denoiser):
            return self.denoiser.velocity(x, t, y)

    @torch.no_grad()
    def encode(
        self, images: UInt8[Tensor, "b c h w"], noise: Float[Tensor, "b k m n"] | None = None
    ) -> Float[Tensor, "b k m n"]:
        """Latents of images, normalised where there are statistics.

        They are sampled from the posterior with standard normal ``noise``; without it they are the posterior's mean.
        """
        with evaluating(self.vae):
            latents, logvar = self.vae.encode(to_symmetric(images))
            if noise is not None:
                latents = latents + torch.exp(0.5 * logvar) * noise
        if self._latent_norm is None:
            return latents
        with evaluating(self._latent_norm):
            return self._latent_norm(latents)

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "b k m n"]) -> UInt8[Tensor, "b c h w"]:
        """Images of normalised latents ``x``, which may be float64 as samplers leave them."""
        with evaluating(self.vae):
            # Raw latents again: without this, those of Stable Diffusion would be 5.5 times too small for the decoder.
            return to_levels(self.vae.decode(self.latent_norm.denormalise(x.to(self.latent_norm.running_mean.dtype))))

    def reconstruct(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
        """Images through the autoencoder and back, by the posterior's mean."""
        return reconstruct(self.vae, images)
