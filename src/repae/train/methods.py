"""The ways to train, as data: what distinguishes plain SiT, REPA, REPA-E and the ablations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from repae.config import Config


class RepaE(Config):
    """Joint training through representation alignment (REPA-E, arXiv 2504.10483).

    ``proj_coeff`` weighs the alignment in the denoiser's objective, ``vae_align_proj_coeff`` in the autoencoder's.
    The diffusion loss never reaches the autoencoder.
    """

    kind: Literal["repa-e"] = "repa-e"
    proj_coeff: float = Field(default=0.5, ge=0)
    vae_align_proj_coeff: float = Field(default=1.5, ge=0)


class Repa(Config):
    """The denoiser alone on a frozen autoencoder (REPA, arXiv 2410.06940); ``proj_coeff=0`` is plain SiT."""

    kind: Literal["repa"] = "repa"
    proj_coeff: float = Field(default=0.5, ge=0)


class Naive(Config):
    """Joint training with the diffusion loss flowing into the autoencoder: the collapse that REPA-E avoids.

    For the ablation only (REPA-E, Table "no stop-gradient"). With alignment weights above zero it is REPA-E without
    the stop-gradient.
    """

    kind: Literal["naive"] = "naive"
    proj_coeff: float = Field(default=0.0, ge=0)
    vae_align_proj_coeff: float = Field(default=0.0, ge=0)


class VaeOnly(Config):
    """The autoencoder and its discriminator, without a denoiser: from scratch, fine-tuning, warm-up.

    ``train_autoencoder=False`` leaves the autoencoder as it is and trains a discriminator for it.
    """

    kind: Literal["vae"] = "vae"
    train_autoencoder: bool = True


Method = Annotated[RepaE | Repa | Naive | VaeOnly, Field(discriminator="kind")]
