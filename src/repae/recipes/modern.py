"""Runs on the autoencoders of today's text-to-image models, which diffusers knows: FLUX.1, FLUX.2, SD3.5, Qwen-Image.

The authors of REPA-E tuned three of them on ImageNet (80 epochs, learning rate 2e-5) and published the results, neither
configurations nor discriminators: what these recipes add is the published run's, and a discriminator from scratch.
"""

from __future__ import annotations

from repae.flow.guidance import Guidance
from repae.models.autoencoders import DiffusersConfig
from repae.models.backbones import SiTBackbone
from repae.recipes.published import published
from repae.recipes.recipe import FromPublished, Recipe
from repae.training.setup import DiscriminatorConfig, LatentNormConfig

VAE_LR = 2e-5
BENCHMARK = "DiffusionBench, arXiv 2606.24888"


def modern() -> list[Recipe]:
    """The joint runs, then one on a frozen autoencoder."""
    return [
        _joint(
            "repae-flux1vae-xl2", "flux.1", "FLUX.1's VAE",
            "GenEval .625, DPG .823, GenAI .706; untuned .559, .796, .684",
        ),
        _joint(
            "repae-sd35vae-xl2", "sd3.5", "SD3.5's VAE",
            "GenEval .637, DPG .840, GenAI .715; untuned .640, .818, .702",
        ),
        _joint(
            "repae-qwenvae-xl2", "qwen-image", "Qwen-Image's VAE",
            "GenEval .691, DPG .835, GenAI .714; untuned .611, .802, .704",
        ),
        _base("repa-sdvae-xl2").replace(
            name="repa-flux2vae-xl1",
            about="REPA: SiT-XL/1 aligned with DINOv2-B on FLUX.2's frozen VAE, normalised by its own batch norm.",
            target=f"none for a SiT; {BENCHMARK}, of a DDT on this frozen VAE, 100k steps: FID 1.37 with guidance",
            vae=DiffusersConfig.preset("flux.2"),
            start=FromPublished(),
            backbone=SiTBackbone.preset("SiT-XL/1"),
            latent_norm=LatentNormConfig(statistics="published"),
            **{"evaluation.guidance": UNTUNED},
        ),
    ]  # fmt: skip


UNTUNED = Guidance(scale=1.0, low=0.0, high=1.0)
"""None: no published scale and interval belong to these runs."""


def _joint(name: str, vae: str, what: str, result: str) -> Recipe:
    return _base("repae-sdvae-xl2").replace(
        name=name,
        about=f"SiT-XL/2 and {what}, jointly, as REPA-E's authors tuned it on ImageNet: its learning rate is 2e-5.",
        target=f"none for this run; {BENCHMARK}, of a text-to-image model on the tuned VAE, 100k steps: {result}",
        vae=DiffusersConfig.preset(vae),
        start=FromPublished(),
        discriminator=DiscriminatorConfig(),
        **{"optimisers.vae.lr": VAE_LR, "evaluation.guidance": UNTUNED},
    )


def _base(name: str) -> Recipe:
    return next(recipe for recipe in published() if recipe.name == name)
