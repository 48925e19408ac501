"""diffusers' families of autoencoders, each as the project sees an autoencoder: raw latents, images in [-1, 1].

Each says what its raw latents are and which statistics its authors published for them. The constants of a published
configuration, and FLUX.2's batch norm, go into `published_statistics` and nowhere else, so that they cannot act twice.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from repae.config import UserError
from repae.models.autoencoders.base import (
    Autoencoder,
    DeterministicAutoencoder,
    QuantisedAutoencoder,
    Statistics,
    VariationalAutoencoder,
)
from repae.models.layers import at_least_float32
from repae.runtime.precision import float32


class DiffusersAutoencoder(Autoencoder):
    """A model of diffusers, ``model``, behind the project's interface. In a state dict its names follow ``model.``."""

    def __init__(self, model: Any, *, latent_channels: int, factor: int, image_channels: int) -> None:
        super().__init__(latent_channels=latent_channels, factor=factor, image_channels=image_channels)
        self.model = model

    def repeated_parts(self) -> list[nn.Module]:
        parts: list[nn.Module] = []
        for half in (self.model.encoder, self.model.decoder):
            for name in ("down_blocks", "mid_block", "up_blocks"):
                blocks = getattr(half, name, None)
                parts += blocks if isinstance(blocks, nn.ModuleList) else [blocks] if blocks is not None else []
        return parts

    def _scaled(self, shift: float = 0.0) -> Statistics:
        """Of one shift and one ``scaling_factor`` for all channels: normalised = (z - shift) scaling_factor."""
        std = 1.0 / self.model.config.scaling_factor
        return torch.full((self.latent_channels,), shift), torch.full((self.latent_channels,), std)


class KL(DiffusersAutoencoder, VariationalAutoencoder):
    """`AutoencoderKL`: Stable Diffusion, SDXL, SD3, SD3.5, FLUX.1, with convolutions for quantising or without."""

    def __init__(self, model: Any) -> None:
        c, factor = model.config, _halvings(model)
        super().__init__(model, latent_channels=c.latent_channels, factor=factor, image_channels=c.in_channels)

    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        return self.model.encode(images).latent_dist.parameters

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        return self.model.decode(z).sample

    def published_statistics(self) -> Statistics:
        """Of ``latents_mean`` and ``latents_std`` where they are given, else of ``shift_factor``; times the scale."""
        c = self.model.config
        if c.latents_mean is not None and c.latents_std is not None:
            return torch.tensor(c.latents_mean), torch.tensor(c.latents_std) / c.scaling_factor
        return self._scaled(c.shift_factor or 0.0)


class KLFlux2(DiffusersAutoencoder, VariationalAutoencoder):
    """`AutoencoderKLFlux2`: latents in patches of 2 x 2, four times the channels at half the side.

    The patches are what FLUX.2 normalises, with a batch norm of its own whose statistics come with the weights. It is
    never run here; with ``latent_norm.statistics: published`` the project's own one starts from it.
    """

    def __init__(self, model: Any) -> None:
        c, patch = model.config, model.config.patch_size[0]
        channels, factor = c.latent_channels * patch**2, _halvings(model) * patch
        super().__init__(model, latent_channels=channels, factor=factor, image_channels=c.in_channels)
        self.patch = patch

    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        return F.pixel_unshuffle(self.model.encode(images).latent_dist.parameters, self.patch)

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        return self.model.decode(F.pixel_shuffle(z, self.patch)).sample

    def published_statistics(self) -> Statistics:
        """Of the batch norm; its eps is left to the latent norm, whose default is the same 1e-4."""
        return self.model.bn.running_mean.clone(), self.model.bn.running_var.sqrt()


class KLQwenImage(DiffusersAutoencoder, VariationalAutoencoder):
    """`AutoencoderKLQwenImage`: an autoencoder of films, which sees an image as a film of one frame.

    What mixes frames has nothing to do then and does not train. The clamp to [-1, 1] after its decoder is left out: it
    would end the gradient of every pixel beyond.
    """

    def __init__(self, model: Any) -> None:
        c = model.config
        factor = 2 ** len(c.temperal_downsample)
        super().__init__(model, latent_channels=c.z_dim, factor=factor, image_channels=c.input_channels)
        for name, parameter in model.named_parameters():
            if ".time_conv." in name:
                parameter.requires_grad_(False)

    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        # diffusers' `encode` keeps earlier frames in lists of the model; the first frame needs none of them.
        return self.model.quant_conv(self.model.encoder(images[:, :, None]))[:, :, 0]

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        return self.model.decoder(self.model.post_quant_conv(z[:, :, None]))[:, :, 0]

    def published_statistics(self) -> Statistics:
        """``latents_mean`` and ``latents_std`` of its configuration."""
        return torch.tensor(self.model.config.latents_mean), torch.tensor(self.model.config.latents_std)


class DC(DiffusersAutoencoder, DeterministicAutoencoder):
    """`AutoencoderDC` (DC-AE, arXiv 2410.10733): no posterior, factors of 32 and more."""

    def __init__(self, model: Any) -> None:
        c, factor = model.config, model.spatial_compression_ratio
        super().__init__(model, latent_channels=c.latent_channels, factor=factor, image_channels=c.in_channels)

    def latents(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        return self.model.encode(images).latent

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        return self.model.decode(z).sample

    def published_statistics(self) -> Statistics:
        """Mean 0 and one over ``scaling_factor``, the inverse of the root mean square of its latents."""
        return self._scaled()


class RAE(DiffusersAutoencoder, DeterministicAutoencoder):
    """`AutoencoderRAE` (arXiv 2510.11690): the tokens of a pretrained encoder, and a decoder made for them.

    It is used frozen, and for images of one size. diffusers normalises its latents inside `encode`; here that is
    undone, so that they leave raw like all others.
    """

    trainable = False

    def __init__(self, model: Any) -> None:
        c = model.config
        if not c.reshape_to_2d:
            raise UserError("an AutoencoderRAE with reshape_to_2d false gives no map of latents; set it to true")
        channels, factor = c.encoder_hidden_size, model.decoder_patch_size
        super().__init__(model, latent_channels=channels, factor=factor, image_channels=c.num_channels)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> RAE:
        """Stays in eval mode: in train mode diffusers adds noise to the latents."""
        return super().train(False)

    def latents(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        side = self.model.decoder_image_size
        if images.shape[-2:] != (side, side):
            raise UserError(
                f"this AutoencoderRAE was made for images of {side}x{side} pixels, not "
                f"{images.shape[-2]}x{images.shape[-1]}; set data.resolution to {side}"
            )
        # diffusers' RAE takes images in [0, 1], all others in [-1, 1].
        normalised = at_least_float32(self.model.encode((images + 1) / 2).latent)
        return self.model._denormalize_latents(normalised / self.model.config.scaling_factor)

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        normalised = self.model._normalize_latents(z) * self.model.config.scaling_factor
        return self.model.decode(normalised).sample * 2 - 1

    def published_statistics(self) -> Statistics:
        """Of the statistics that come with its weights; those of each place are pooled into those of a channel."""
        # diffusers adds 1e-5 to every deviation.
        parts = (self.model._latents_mean, self.model._latents_std + 1e-5)
        mean, std = (_by_channel(part, self.latent_channels) for part in parts)
        mean, std = torch.broadcast_tensors(mean, std)
        between = mean.var(1, correction=0)
        return mean.mean(1), (std.square().mean(1) + between).sqrt() / self.model.config.scaling_factor


class VQ(DiffusersAutoencoder, QuantisedAutoencoder):
    """`VQModel`: the autoencoders with a codebook of latent diffusion (VQGAN, arXiv 2012.09841)."""

    def __init__(self, model: Any) -> None:
        c, factor = model.config, _halvings(model)
        channels = c.vq_embed_dim or c.latent_channels
        super().__init__(model, latent_channels=channels, factor=factor, image_channels=c.in_channels)

    def latents(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k m n"]:
        return self.model.encode(images).latents

    def quantise(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b k m n"]:
        book = self.model.quantize.embedding
        with float32():
            # Distances in half precision would tie, and choose other vectors.
            places = at_least_float32(z.detach()).movedim(1, -1)
            nearest = torch.cdist(places.flatten(0, 2), book.weight.detach().to(places.dtype)).argmin(1)
            return book(nearest).view(places.shape).movedim(-1, 1)

    def decode_codes(self, codes: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        condition = codes if self.model.config.norm_type == "spatial" else None
        return self.model.decoder(self.model.post_quant_conv(codes), condition)

    def published_statistics(self) -> Statistics:
        return self._scaled()


FAMILIES: dict[str, type[KL | KLFlux2 | KLQwenImage | DC | RAE | VQ]] = {
    "AutoencoderKL": KL,
    "AutoencoderKLFlux2": KLFlux2,
    "AutoencoderKLQwenImage": KLQwenImage,
    "AutoencoderDC": DC,
    "AutoencoderRAE": RAE,
    "VQModel": VQ,
}
"""By the name of diffusers' class."""


def _halvings(model: Any) -> int:
    """By how much a side shrinks where every level but the first halves it."""
    return 2 ** (len(model.config.block_out_channels) - 1)


def _by_channel(statistic: Tensor, channels: int) -> Float[Tensor, "k places"]:
    """One row for each channel, from a statistic of everything, of each channel, or of each channel and place."""
    if statistic.numel() == 1:
        return statistic.flatten().expand(channels)[:, None]
    return statistic.reshape(channels, -1)
