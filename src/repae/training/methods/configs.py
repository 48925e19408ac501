"""The ways to train, as data: what distinguishes plain SiT, REPA, REPA-E and the ablations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from repae.config import Config
from repae.models.teachers.targets import SpatialNormConfig
from repae.runtime.schedules import Constant, WeightSchedule


class RepaE(Config):
    """Joint training through representation alignment (REPA-E, arXiv 2504.10483).

    ``proj_coeff`` weighs the alignment in the denoiser's objective, ``vae_align_proj_coeff`` in the autoencoder's.
    The diffusion loss never reaches the autoencoder. ``align_schedule`` is the factor of both weights at each step;
    once it is 0, no teacher is asked any more. ``spatial_norm`` normalises the teachers' tokens over places.
    """

    kind: Literal["repa-e"] = "repa-e"
    proj_coeff: float = Field(default=0.5, ge=0)
    vae_align_proj_coeff: float = Field(default=1.5, ge=0)
    align_schedule: WeightSchedule = Constant()
    spatial_norm: SpatialNormConfig | None = None


class SelfTeacherConfig(Config):
    """The denoiser's own average as a teacher, at a later block and with less noise (SRA, arXiv 2505.02831).

    Nothing is downloaded. In joint training there is none: an autoencoder would please such a teacher by latents that
    say little.

    Attributes:
        depth: 1-based number of the block whose tokens are aligned to; behind ``backbone.encoder_depth``.
        interval: the teacher's time is up to so much smaller, uniformly drawn for each image, and never below 0.
    """

    depth: int = Field(ge=2)
    interval: float = Field(default=0.2, ge=0, le=1)


class Repa(Config):
    """The denoiser alone on a frozen autoencoder (REPA, arXiv 2410.06940); ``proj_coeff=0`` is plain SiT.

    ``align_schedule`` and ``spatial_norm`` as in joint training. ``self_teacher`` is one more teacher, or the only one.
    """

    kind: Literal["repa"] = "repa"
    proj_coeff: float = Field(default=0.5, ge=0)
    align_schedule: WeightSchedule = Constant()
    spatial_norm: SpatialNormConfig | None = None
    self_teacher: SelfTeacherConfig | None = None


class Naive(Config):
    """Joint training with the diffusion loss flowing into the autoencoder: the collapse that REPA-E avoids.

    For the ablation only (REPA-E, Table "no stop-gradient"). With alignment weights above zero it is REPA-E without
    the stop-gradient; ``align_schedule`` and ``spatial_norm`` as there.
    """

    kind: Literal["naive"] = "naive"
    proj_coeff: float = Field(default=0.0, ge=0)
    vae_align_proj_coeff: float = Field(default=0.0, ge=0)
    align_schedule: WeightSchedule = Constant()
    spatial_norm: SpatialNormConfig | None = None


class VaeOnly(Config):
    """The autoencoder and its discriminator, without a denoiser: from scratch, fine-tuning, warm-up.

    ``train_autoencoder=False`` leaves the autoencoder as it is and trains a discriminator for it.
    """

    kind: Literal["vae"] = "vae"
    train_autoencoder: bool = True


Aligned = RepaE | Repa | Naive
"""The methods that train a denoiser."""

Method = Annotated[RepaE | Repa | Naive | VaeOnly, Field(discriminator="kind")]
