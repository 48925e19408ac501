"""Small runs on images at hand: the embedded digits in every method, and a start for a folder of one's own."""

from __future__ import annotations

from repae.data import FolderConfig
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import DiffusersConfig, TinyConfig
from repae.models.backbones import LightningBackbone, SiTBackbone
from repae.recipes.recipe import (
    EmbeddedTeacherTraining,
    FromScratch,
    FromWarmup,
    PreviewConfig,
    Recipe,
    RecipeEvaluation,
    RuntimeConfig,
    TeacherPerceptual,
)
from repae.runtime.ema import EmaConfig
from repae.runtime.optimise import AdamWConfig
from repae.runtime.schedules import Cosine, OneCycle
from repae.training.loop import LoopConfig
from repae.training.method import SelfTeacherConfig
from repae.training.methods import Naive, Repa, RepaE, VaeOnly
from repae.training.setup import DiscriminatorConfig, OptimisersConfig

NO_PUBLISHED = "none: the digits are no published benchmark; docs/miniature.md has this project's own figures"

SMALL_SIT = SiTBackbone(
    hidden_size=96, depth=4, num_heads=4, patch_size=2, encoder_depth=2, projector_dim=192, class_dropout_prob=0.1
)
SMALL_PATCH_GAN = DiscriminatorConfig(ndf=16, n_layers=2)
SMALL_VQ = DiffusersConfig(
    architecture={
        "_class_name": "VQModel",
        "in_channels": 1,
        "out_channels": 1,
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "block_out_channels": [16, 16, 32],
        "norm_num_groups": 8,
        "latent_channels": 4,
        "num_vq_embeddings": 256,
        "mid_block_add_attention": False,
        "scaling_factor": 1.0,
    }
)
PIXELS_AND_KL = AutoencoderLossConfig(perceptual_weight=0.0, discriminator_weight=0.0, kl_weight=1e-6)
FALLING = Cosine(warmup_steps=50, final=0.05)


def digits() -> list[Recipe]:
    """The digits in every method and with a codebook, and ``folder``."""
    joint = _joint()
    return [joint, *_methods(joint), *_autoencoders_alone(joint), _folder()]


def _joint() -> Recipe:
    return Recipe(
        name="digits",
        about=(
            "REPA-E on 1,797 scanned digits, in minutes on two cores: tiny VAE, small SiT, a teacher trained without "
            "labels. Discriminator and perceptual term are off for the sake of the clock: they cost about half as much "
            "again and 0.7 dB of PSNR here; digits-full has both on."
        ),
        target=NO_PUBLISHED,
        method=RepaE(),
        vae=TinyConfig(),
        backbone=SMALL_SIT,
        discriminator=SMALL_PATCH_GAN,
        losses=PIXELS_AND_KL,
        optimisers=OptimisersConfig(
            denoiser=AdamWConfig(lr=3e-3, schedule=FALLING),
            vae=AdamWConfig(lr=5e-4, schedule=FALLING),
            discriminator=AdamWConfig(lr=2e-4),
        ),
        # At a decay of .9999 the average of 1,000 steps would still be nine tenths initial weights.
        ema=EmaConfig(decay=0.995, warmup=True, statistics="copy"),
        loop=LoopConfig(steps=1000, batch_size=64, log_every=10, checkpoint_every=250),
        teachers=(EmbeddedTeacherTraining(),),
        start=FromWarmup(steps=200, batch_size=64),
        runtime=RuntimeConfig(precision="fp32"),
        preview=PreviewConfig(every=250),
    )


def _methods(joint: Recipe) -> list[Recipe]:
    return [
        joint.replace(
            name="digits-repa", about="REPA on the digits: the denoiser alone, aligned, on the frozen warmed-up VAE.",
            method=Repa(),
        ),
        joint.replace(
            name="digits-sit", about="Plain SiT on the digits: no teacher, on the frozen warmed-up VAE.",
            method=Repa(proj_coeff=0.0), teachers=(),
        ),
        joint.replace(
            name="digits-lightning", about="REPA-E on the digits with another backbone: LightningDiT.",
            backbone=LightningBackbone(
                hidden_size=96, depth=4, num_heads=4, patch_size=2, encoder_depth=2, projector_dim=192
            ),
        ),
        joint.replace(
            name="digits-naive",
            about="The collapse that REPA-E avoids: the diffusion loss reaches the VAE, and nothing is aligned.",
            method=Naive(), teachers=(),
        ),
        joint.replace(
            name="digits-control",
            about="REPA-E with targets that hold no image: the teacher's mean tokens of each (class, position).",
            class_mean_targets=True,
        ),
        joint.replace(
            name="digits-full",
            about="REPA-E on the digits with all three players: discriminator and perceptual term in teacher features.",
            perceptual=TeacherPerceptual(),
            losses=PIXELS_AND_KL.replace(perceptual_weight=1.0, discriminator_weight=0.1),
        ),
        joint.replace(
            name="digits-vq", vae=SMALL_VQ,
            about="REPA-E on the digits with a codebook of 256 vectors in place of the KL: diffusers' VQModel.",
        ),
        joint.replace(
            name="digits-sra",
            about="Self-alignment (SRA) on the frozen warmed-up VAE: the teacher is the denoiser's own average.",
            method=Repa(self_teacher=SelfTeacherConfig(depth=4)), teachers=(),
        ),
    ]  # fmt: skip


def _autoencoders_alone(joint: Recipe) -> list[Recipe]:
    return [
        joint.replace(
            name="digits-vae", about="The tiny VAE alone on the digits, from scratch.",
            method=VaeOnly(), teachers=(), start=FromScratch(),
            **{"optimisers.vae": AdamWConfig(lr=2e-3, schedule=OneCycle())},
        ),
        joint.replace(
            name="digits-vae-finetune",
            about="The warmed-up VAE, or the one that start.path names, tuned further with all losses.",
            method=VaeOnly(), perceptual=TeacherPerceptual(),
            losses=PIXELS_AND_KL.replace(perceptual_weight=1.0, discriminator_weight=0.1, discriminator_start=100),
            **{"loop.steps": 500},
        ),
        joint.replace(
            name="digits-discriminator",
            about="A discriminator for the warmed-up VAE, which stays as it is: what digits-full may start with.",
            method=VaeOnly(train_autoencoder=False), teachers=(),
            losses=PIXELS_AND_KL.replace(discriminator_weight=0.1),
            **{"loop.steps": 300},
        ),
    ]  # fmt: skip


def _folder() -> Recipe:
    return Recipe(
        name="folder",
        about=(
            "REPA-E on any folder of images with one subfolder for each class, at 64 px, with nothing to download: "
            "`repae train folder --data.path FOLDER --name NAME`. A start; more steps and a larger SiT do better."
        ),
        target="none: a start for images of one's own",
        data=FolderConfig(path="images", resolution=64),
        vae=TinyConfig(),
        backbone=SiTBackbone.preset("SiT-S/2", encoder_depth=4, projector_dim=768),
        discriminator=SMALL_PATCH_GAN,
        losses=PIXELS_AND_KL.replace(perceptual_weight=1.0),
        perceptual=TeacherPerceptual(),
        optimisers=OptimisersConfig(
            denoiser=AdamWConfig(lr=5e-4, schedule=Cosine(warmup_steps=200, final=0.05)),
            vae=AdamWConfig(lr=2e-4, schedule=Cosine(warmup_steps=200, final=0.05)),
        ),
        ema=EmaConfig(decay=0.999, warmup=True),
        loop=LoopConfig(steps=20_000, batch_size=64, log_every=50, checkpoint_every=1000),
        teachers=(EmbeddedTeacherTraining(steps=500),),
        start=FromWarmup(steps=1000),
        runtime=RuntimeConfig(workers=2),
        preview=PreviewConfig(every=1000),
        evaluation=RecipeEvaluation(images=1000),
    )
