"""Autoencoders alone: trained from scratch, tuned further, or left as they are while a discriminator learns.

Joint training begins best from an autoencoder and a discriminator that know their trade. One that was published without
its discriminator gets one here: the `...-discriminator` recipes.
"""

from __future__ import annotations

from repae.data import FolderConfig
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import KLConfig, TinyConfig
from repae.recipes.recipe import (
    EmbeddedTeacherTraining,
    FromScratch,
    FromWeights,
    LpipsPerceptual,
    PreviewConfig,
    Recipe,
    RuntimeConfig,
    TeacherPerceptual,
)
from repae.runtime.ema import EmaConfig
from repae.runtime.optimise import AdamWConfig
from repae.runtime.schedules import Constant, Cosine
from repae.training.loop import LoopConfig
from repae.training.methods import VaeOnly
from repae.training.setup import DiscriminatorConfig, OptimisersConfig

FROZEN = VaeOnly(train_autoencoder=False)
NO_TARGET = "none: no published run is repeated here"


def autoencoders() -> list[Recipe]:
    """All of them: on a folder of images at 64 px, then at 256 px with the published architectures."""
    return [*_on_a_folder(), *_at_256("f8d4", "sdvae"), *_at_256("f16d32", "vavae")]


def _on_a_folder() -> list[Recipe]:
    scratch = Recipe(
        name="folder-vae",
        about=(
            "A tiny VAE alone, from scratch, on any folder of images at 64 px, with nothing to download: "
            "L1 + KL + a perceptual term in the features of a teacher trained on the same images."
        ),
        target=NO_TARGET,
        method=VaeOnly(),
        data=FolderConfig(path="images", resolution=64),
        vae=TinyConfig(latent_channels=8, base_channels=32),
        teachers=(EmbeddedTeacherTraining(steps=500),),
        perceptual=TeacherPerceptual(),
        losses=AutoencoderLossConfig(perceptual_weight=1.0, discriminator_weight=0.0),
        discriminator=DiscriminatorConfig(ndf=16, n_layers=2),
        optimisers=OptimisersConfig(
            vae=AdamWConfig(lr=1e-3, schedule=Cosine(warmup_steps=100, final=0.05)),
            discriminator=AdamWConfig(lr=2e-4, schedule=Constant()),
        ),
        ema=EmaConfig(decay=0.999, warmup=True),
        loop=LoopConfig(steps=10_000, batch_size=32, log_every=50, checkpoint_every=1000),
        runtime=RuntimeConfig(workers=2),
        preview=PreviewConfig(every=1000),
    )
    weights = FromWeights(path="runs/folder-vae")
    return [
        scratch,
        scratch.replace(
            name="folder-vae-finetune",
            about="The VAE of folder-vae, or of any run named by start.path, tuned further against a discriminator.",
            start=weights,
            losses=scratch.losses.replace(discriminator_weight=0.1, discriminator_start=500),
            **{"optimisers.vae.lr": 1e-4, "loop.steps": 5000},
        ),
        scratch.replace(
            name="folder-discriminator",
            about="A discriminator for the VAE of folder-vae, which stays as it is: a warm-up for joint training.",
            method=FROZEN,
            start=weights,
            losses=scratch.losses.replace(perceptual_weight=0.0, discriminator_weight=0.1),
            **{"loop.steps": 2000},
        ),
    ]


def _at_256(architecture: str, weights: str) -> list[Recipe]:
    """The published architecture on ImageNet: L1 + LPIPS + KL + GAN, the weights of REPA-E's loss file."""
    start = FromWeights(path=f"pretrained/{weights}/{weights}-{architecture}.pt")
    scratch = Recipe(
        name=f"vae-{architecture}",
        about=(
            f"An {architecture} VAE alone on ImageNet at 256 px, from scratch; its discriminator joins at step 50,000."
        ),
        target=NO_TARGET,
        method=VaeOnly(),
        data=FolderConfig(path="data/imagenet/train", resolution=256),
        vae=KLConfig.preset(architecture),
        start=FromScratch(),
        perceptual=LpipsPerceptual(),
        losses=AutoencoderLossConfig(discriminator_start=50_000),
        ema=EmaConfig(decay=0.999, warmup=True),
        loop=LoopConfig(steps=400_000, batch_size=64, log_every=100, checkpoint_every=10_000),
        runtime=RuntimeConfig(device="cuda", precision="bf16", compile=True, workers=4),
        preview=PreviewConfig(every=5000),
    )
    return [
        scratch,
        scratch.replace(
            name=f"vae-{architecture}-finetune",
            about=f"A published {architecture} VAE tuned further on images of one's own, with all four losses.",
            start=start,
            losses=AutoencoderLossConfig(),
            **{"optimisers.vae.lr": 2e-5, "loop.steps": 50_000},
        ),
        scratch.replace(
            name=f"vae-{architecture}-discriminator",
            about=(
                f"A discriminator for an {architecture} VAE that was published without one: the VAE stays as it is. "
                "Its weights then start the one of a joint run."
            ),
            method=FROZEN,
            start=start,
            losses=AutoencoderLossConfig(perceptual_weight=0.0),
            **{"loop.steps": 20_000},
        ),
    ]
