"""Bundles small enough for a test, whose every layer does something."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from repae.models import Bundle, Denoiser, KLConfig, LatentNorm, SiT, SiTConfig, TinyConfig
from repae.models.autoencoders import Autoencoder


@pytest.fixture(autouse=True)
def _no_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that a folder carries is copied into the library's cache; not into the user's."""
    import diffusers.utils.dynamic_modules_utils as dynamic

    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path_factory.getbasetemp() / "modules"))


def awake(module: nn.Module) -> nn.Module:
    """With the parameters that begin as zero moved off it, in eval mode."""
    source = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(0.05 * torch.randn(parameter.shape, generator=source))
    return module.eval()


def make_bundle(vae: Autoencoder, **sizes: object) -> Bundle:
    """A generator of 8 x 8 latents, three classes, one projector, with statistics far from 0 and 1."""
    config = SiTConfig(
        **{"input_size": 8, "hidden_size": 24, "depth": 2, "num_heads": 2, "num_classes": 3, "in_channels": 4, **sizes}
    )
    denoiser = awake(Denoiser(SiT(config), [5], 1, 8))
    norm = LatentNorm(4).eval()
    norm.set_statistics(torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([0.3, 5.5, 0.02, 1.0]))
    return Bundle("ema", denoiser, vae.eval(), norm)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def tiny() -> Bundle:
    """Of one-channel images, without a null class."""
    torch.manual_seed(1)
    return make_bundle(TinyConfig().build(1), class_dropout_prob=0.0)


@pytest.fixture(scope="session")
def kl() -> Bundle:
    """Of colour images, with attention in a level and a norm of queries and keys."""
    torch.manual_seed(2)
    config = KLConfig(base_channels=32, channel_multipliers=(1, 1, 2), blocks_per_level=1, attention_levels=(2,))
    return make_bundle(config.build(3), qk_norm=True)
