"""The KL autoencoders of latent diffusion (arXiv 2112.10752), as diffusers' `AutoencoderKL`."""

from __future__ import annotations

from typing import Any, Literal

from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor, nn

from repae.config import Config, UserError, suggest
from repae.models.autoencoders.base import VariationalAutoencoder

_GROUPS = 32

_PRESETS: dict[str, dict[str, Any]] = {
    "f8d4": {},
    "f16d32": {"latent_channels": 32, "channel_multipliers": (1, 1, 2, 2, 4), "attention_levels": (4,)},
}


class KLConfig(Config):
    """Sizes of a KL autoencoder; the defaults are ``f8d4``, Stable Diffusion's.

    Attributes:
        latent_channels: channels of the latent.
        base_channels: width at the entrance, a multiple of 32.
        channel_multipliers: width of each level relative to ``base_channels``, from full resolution down; each level
            but the first halves the side. Published ones begin with 1, as diffusers' own files must.
        blocks_per_level: residual blocks in each level of the encoder; the decoder has one more.
        attention_levels: levels, counted from 0 at full resolution, with attention after each block. The middle has
            attention always.
    """

    kind: Literal["kl"] = "kl"
    latent_channels: int = Field(default=4, ge=1)
    base_channels: int = Field(default=128, ge=_GROUPS, multiple_of=_GROUPS)
    channel_multipliers: tuple[int, ...] = Field(default=(1, 2, 4, 4), min_length=1)
    blocks_per_level: int = Field(default=2, ge=1)
    attention_levels: tuple[int, ...] = ()

    @field_validator("channel_multipliers")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError(f"{value} holds a multiplier below 1; allowed: whole numbers from 1 on")
        return value

    @field_validator("attention_levels")
    @classmethod
    def _levels_exist(cls, value: tuple[int, ...], info: Any) -> tuple[int, ...]:
        levels = len(info.data.get("channel_multipliers", ()))
        if any(not 0 <= level < levels for level in value):
            raise ValueError(f"{value} names a level that does not exist; allowed: 0 to {levels - 1}")
        return tuple(sorted(set(value)))

    @classmethod
    def preset(cls, name: str, **changes: Any) -> KLConfig:
        """A published autoencoder by name, ``f8d4`` or ``f16d32``, with fields changed by keyword.

        Raises:
            UserError: for an unknown name (with a suggestion) or a value that is not allowed.
        """
        if name not in _PRESETS:
            raise UserError(
                f"{name!r} is not a KL autoencoder preset; allowed: {', '.join(_PRESETS)}{suggest(name, _PRESETS)}"
            )
        return cls(**(_PRESETS[name] | changes))

    @property
    def factor(self) -> int:
        return 2 ** (len(self.channel_multipliers) - 1)

    def build(self, image_channels: int = 3) -> KLAutoencoder:
        return KLAutoencoder(self, image_channels)


class KLAutoencoder(VariationalAutoencoder):
    """diffusers' `AutoencoderKL`, which is ``model``, behind the project's interface."""

    def __init__(self, config: KLConfig, image_channels: int = 3) -> None:
        super().__init__(latent_channels=config.latent_channels, factor=config.factor, image_channels=image_channels)
        # diffusers takes a second to import; a run with another autoencoder does not need it.
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        self.config = config
        attends = [level in config.attention_levels for level in range(len(config.channel_multipliers))]
        sizes: dict[str, Any] = {
            "in_channels": image_channels,
            "out_channels": image_channels,
            "down_block_types": tuple("AttnDownEncoderBlock2D" if on else "DownEncoderBlock2D" for on in attends),
            "up_block_types": tuple("AttnUpDecoderBlock2D" if on else "UpDecoderBlock2D" for on in reversed(attends)),
            "block_out_channels": tuple(config.base_channels * factor for factor in config.channel_multipliers),
            "layers_per_block": config.blocks_per_level,
            "latent_channels": config.latent_channels,
            "norm_num_groups": _GROUPS,
            # Latents leave raw: the latent norm alone scales them.
            "scaling_factor": 1.0,
        }
        self.model = AutoencoderKL(**sizes)
        if config.channel_multipliers[0] != 1:
            self._narrow_entrance(config)

    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        assert self.model.quant_conv is not None
        return self.model.quant_conv(self.model.encoder(images))

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        assert self.model.post_quant_conv is not None
        return self.model.decoder(self.model.post_quant_conv(z))

    def repeated_parts(self) -> list[nn.Module]:
        encoder, decoder = self.model.encoder, self.model.decoder
        return [*encoder.down_blocks, encoder.mid_block, decoder.mid_block, *decoder.up_blocks]

    def _narrow_entrance(self, config: KLConfig) -> None:
        """Let the encoder start at ``base_channels``, as latent diffusion does; diffusers starts at the first level."""
        from diffusers.models.resnet import ResnetBlock2D

        encoder: Any = self.model.encoder
        width = config.base_channels * config.channel_multipliers[0]
        block: dict[str, Any] = {"temb_channels": None, "groups": _GROUPS, "eps": 1e-6, "non_linearity": "silu"}
        encoder.conv_in = nn.Conv2d(self.image_channels, config.base_channels, kernel_size=3, padding=1)
        encoder.down_blocks[0].resnets[0] = ResnetBlock2D(in_channels=config.base_channels, out_channels=width, **block)
