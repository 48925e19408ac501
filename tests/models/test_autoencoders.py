"""Autoencoders: the published sizes, one behaviour for all, and a tiny one that cannot paint a lattice."""

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.models import KLConfig, TinyConfig

SMALL_KL = KLConfig(
    latent_channels=4, base_channels=32, channel_multipliers=(1, 2, 1), blocks_per_level=1, attention_levels=(1,)
)
ALL = [SMALL_KL, TinyConfig(), TinyConfig(latent_channels=6, base_channels=24)]


def built(config, channels=3):
    torch.manual_seed(0)
    return config.build(channels).eval()


@pytest.mark.parametrize(
    ("name", "numbers", "latent"), [("f8d4", 83_653_863, (4, 32, 32)), ("f16d32", 69_836_067, (32, 16, 16))]
)
def test_published_sizes(name, numbers, latent):
    """Exactly the reference's parameters, and its latents of 256-pixel images."""
    with torch.device("meta"):
        vae = KLConfig.preset(name).build()
        out = vae(torch.zeros(2, 3, 256, 256), torch.zeros(2, *latent))
    assert sum(parameter.numel() for parameter in vae.parameters()) == numbers
    assert out.z.shape == out.mean.shape == out.logvar.shape == (2, *latent)
    assert out.reconstruction.shape == (2, 3, 256, 256)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("config", ALL, ids=lambda config: config.kind)
@torch.no_grad()
def test_one_pass_is_encode_sample_decode(config, channels):
    """z = mean + std noise, decoded; the attributes tell the shapes, also of images that are not square."""
    vae = built(config, channels)
    assert vae.factor == config.factor == 4 and vae.image_channels == channels
    images = torch.rand(2, channels, 16, 24) * 2 - 1
    noise = torch.randn(2, vae.latent_channels, 4, 6)
    out = vae(images, noise)
    mean, logvar = vae.encode(images)
    assert torch.equal(out.mean, mean) and torch.equal(out.logvar, logvar)
    torch.testing.assert_close(out.z, mean + (logvar / 2).exp() * noise)
    assert torch.equal(out.reconstruction, vae.decode(out.z)) and out.reconstruction.shape == images.shape


@pytest.mark.parametrize("config", ALL[:2], ids=lambda config: config.kind)
@torch.no_grad()
def test_latents_are_float32_under_autocast(config):
    """Whatever the convolutions compute in, KL and sampling do not lose digits to it."""
    vae = built(config)
    with torch.autocast("cpu", torch.bfloat16):
        out = vae(torch.rand(1, 3, 16, 16), torch.randn(1, vae.latent_channels, 4, 4))
    assert out.mean.dtype == out.logvar.dtype == out.z.dtype == torch.float32


@torch.no_grad()
def test_log_variance_is_bounded():
    """-30 to 20, where the gradient ends; means are not bounded."""
    vae = built(TinyConfig())
    vae.encoder[-1].bias[:4] = 100.0
    for bias, bound in ((1e3, 20.0), (-1e3, -30.0)):
        vae.encoder[-1].bias[4:] = bias
        mean, logvar = vae.encode(torch.zeros(1, 3, 8, 8))
        assert (logvar == bound).all() and (mean > 50).all()


@pytest.mark.parametrize("config", ALL[:2], ids=lambda config: config.kind)
def test_images_that_do_not_fit(config):
    """Other channels, or a side that the factor does not divide: refused in words."""
    vae = built(config)
    with refused(UserError, "3 channels", 1, "choose another vae"):
        vae.encode(torch.zeros(1, 1, 16, 16))
    with refused(UserError, "18x16", "multiple of 4", "data.resolution"):
        vae.encode(torch.zeros(1, 3, 18, 16))


@pytest.mark.parametrize("config", ALL[:2], ids=lambda config: config.kind)
def test_a_gradient_reaches_every_parameter(config):
    """In one forward pass, as data parallelism requires."""
    vae = built(config)
    out = vae(torch.rand(2, 3, 16, 16), torch.randn(2, vae.latent_channels, 4, 4))
    out.reconstruction.square().sum().backward()
    assert all(parameter.grad is not None for parameter in vae.parameters())


@torch.no_grad()
def test_the_tiny_decoder_paints_no_lattice():
    """A constant latent decodes to a constant away from the borders, whatever the weights: no phase of the pixel grid
    has filters of its own, as behind a pixel-shuffle, where a discriminator taught the decoder dots."""
    vae = built(TinyConfig(), 1)
    for parameter in vae.decoder.parameters():
        parameter.normal_(std=0.3)
    image = vae.decode(torch.randn(1, 4, 1, 1).expand(1, 4, 40, 40))[0, 0, 60:100, 60:100]
    assert image.max() - image.min() < 1e-4 * image.abs().max()


def test_the_tiny_one_is_small():
    """About 97,000 numbers for digits, so that a step takes a fraction of a second on one core."""
    assert sum(parameter.numel() for parameter in TinyConfig().build(1).parameters()) == 97_497


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (lambda: KLConfig(base_channels=48), ["base_channels", 48, "multiple of 32"]),
        (lambda: KLConfig(attention_levels=(4,)), ["attention_levels", "(4,)", "0 to 3"]),
        (lambda: KLConfig(channel_multipliers=(1, 0)), ["channel_multipliers", "(1, 0)", "from 1 on"]),
        (lambda: KLConfig.preset("f8d8"), ["'f8d8'", "f8d4", "f16d32", "did you mean 'f8d4'"]),
        (lambda: TinyConfig(base_channels=12), ["base_channels", 12, "multiple of 8"]),
    ],
)
def test_sizes_that_do_not_fit(make, facts):
    """One line with the value and what is allowed."""
    with refused(UserError, *facts):
        make()


@pytest.mark.parametrize("config", [SMALL_KL.replace(channel_multipliers=(1, 1)), TinyConfig()], ids=lambda c: c.kind)
def test_each_part_compiles_as_a_whole(config, unchecked):
    """Regional compilation in place: no graph break, same names, same values."""
    plain, compiled = built(config), built(config)
    for part in compiled.repeated_parts():
        part.compile(backend="eager", fullgraph=True)
    side = 8 // config.factor
    images, noise = torch.rand(1, 3, 8, 8), torch.randn(1, 4, side, side)
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for one, other in zip(plain(images, noise), compiled(images, noise)):
        torch.testing.assert_close(one, other)
