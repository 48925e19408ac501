"""Key conversion: a bijection in both directions, strict; equal to diffusers' own converter where that exists."""

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.models import Denoiser, KLConfig, LatentNorm, PatchGAN, PatchGANConfig, SiT, SiTConfig
from repae.models.reference_keys import (
    discriminator_from_reference,
    discriminator_to_reference,
    kl_config_from_reference,
    sit_from_reference,
    sit_to_reference,
    vae_from_reference,
    vae_to_reference,
)

KL_CONFIGS = [
    KLConfig(latent_channels=4, base_channels=32, channel_multipliers=(1, 2, 4, 4), blocks_per_level=2),
    KLConfig(
        latent_channels=3, base_channels=64, channel_multipliers=(1, 1), blocks_per_level=1, attention_levels=(0,)
    ),
    KLConfig(
        latent_channels=8, base_channels=32, channel_multipliers=(2, 1, 2), blocks_per_level=3, attention_levels=(1, 2)
    ),
    KLConfig(latent_channels=1, base_channels=32, channel_multipliers=(1,), blocks_per_level=1),
]


def same(one, other):
    """Equal names and bit-equal values."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) and one[name].shape == other[name].shape for name in one)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("z_dims", [(), (5, 6, 7)])
def test_sit_there_and_back(depth, qk_norm, z_dims):
    """Any depth, number of projectors and norm; what comes back loads into the modules it came from."""
    config = SiTConfig(
        input_size=4, in_channels=2, hidden_size=12, depth=depth, num_heads=3, num_classes=4, qk_norm=qk_norm
    )
    denoiser, norm = Denoiser(SiT(config), z_dims, 1, 8), LatentNorm(2)
    theirs = sit_to_reference(denoiser.state_dict(), norm.state_dict())
    assert {"pos_embed", "bn.running_mean", "bn.num_batches_tracked", "blocks.0.adaLN_modulation.1.weight"} <= set(
        theirs
    )
    assert not any(name.startswith("backbone.") or "refused" in name for name in theirs)
    ours, statistics = sit_from_reference(theirs)
    same(ours, denoiser.state_dict())
    same(statistics, norm.state_dict())
    denoiser.load_state_dict(ours)
    norm.load_state_dict(statistics)


def test_sit_is_strict():
    """Missing and unknown keys are both named, in both directions."""
    denoiser, norm = Denoiser(SiT(SiTConfig(depth=2, hidden_size=12, num_heads=3)), [5], 1, 8), LatentNorm(4)
    theirs = sit_to_reference(denoiser.state_dict(), norm.state_dict())
    del theirs["blocks.0.mlp.fc1.bias"], theirs["bn.running_var"]
    with refused(UserError, "2 missing", "blocks.0.mlp.fc1.bias", "bn.running_var", "1 unknown", "head", "whole file"):
        sit_from_reference(theirs | {"head": torch.zeros(1)})
    with refused(UserError, "1 missing (backbone.pos_embed)", "1 unknown (pos_embed)"):
        ours = denoiser.state_dict()
        sit_to_reference(
            {name.replace("backbone.pos_embed", "pos_embed"): value for name, value in ours.items()}, norm.state_dict()
        )
    with refused(UserError, "25 missing", "blocks.0.attn.qkv.weight"):
        sit_from_reference({})


@pytest.mark.parametrize("config", KL_CONFIGS)
@pytest.mark.parametrize("channels", [1, 3])
def test_autoencoder_there_and_back(config, channels):
    """Sizes are read off the weights; attention weights are 1x1 convolutions there and matrices here."""
    vae = config.build(channels)
    theirs = vae_to_reference(vae.state_dict())
    assert kl_config_from_reference(theirs) == (config, channels)
    attention = [name for name in theirs if ".attn" in name and name.endswith(("q.weight", "proj_out.weight"))]
    assert len(attention) >= 4 and all(theirs[name].shape[2:] == (1, 1) for name in attention)
    same(vae_from_reference(theirs), vae.state_dict())


def test_autoencoder_as_diffusers_converts_it():
    """Without attention inside blocks, diffusers' converter for latent-diffusion checkpoints gives the same weights."""
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    if not hasattr(single_file, "convert_ldm_vae_checkpoint"):
        pytest.skip("this version of diffusers converts no latent-diffusion autoencoder")
    vae = KL_CONFIGS[0].build()
    theirs = vae_to_reference(vae.state_dict())
    checkpoint = {f"first_stage_model.{name}": value for name, value in theirs.items()}
    converted = single_file.convert_ldm_vae_checkpoint(checkpoint, vae.model.config)
    same({f"model.{name}": value for name, value in converted.items()}, vae_from_reference(theirs))


def test_autoencoder_is_strict():
    """In both directions; weights of something else are called that."""
    vae = KL_CONFIGS[1].build()
    theirs = vae_to_reference(vae.state_dict())
    spoilt = {name: value for name, value in theirs.items() if name != "decoder.up.0.attn.1.q.bias"}
    with refused(UserError, "1 missing", "decoder.up.0.attn.1.q.bias", "1 unknown", "loss.logvar"):
        vae_from_reference(spoilt | {"loss.logvar": torch.zeros(())})
    with refused(UserError, "autoencoder", "'encoder.conv_in.weight' is missing", "give its file"):
        vae_from_reference({"a": torch.zeros(1)})
    ours = vae.state_dict()
    del ours["model.quant_conv.bias"]
    with refused(UserError, "1 missing", "model.quant_conv.bias"):
        vae_to_reference(ours)


@pytest.mark.parametrize("norm", ["batch", "act"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_discriminator_there_and_back(norm, n_layers):
    """The same names, and nothing missing or beside them."""
    state = PatchGAN(PatchGANConfig(ndf=4, n_layers=n_layers, norm=norm)).state_dict()
    theirs = discriminator_to_reference(state)
    same(discriminator_from_reference(theirs), dict(state))
    del theirs["main.0.bias"]
    with refused(UserError, "1 missing", "main.0.bias"):
        discriminator_from_reference(theirs)
    with refused(UserError, "1 unknown", "logvar"):
        discriminator_from_reference(dict(state) | {"logvar": torch.zeros(())})
