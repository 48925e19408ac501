"""Bundle: pixels to normalised latents and back, without gradients and without leaving a trace."""

import pytest
import torch
from errors import refused
from jaxtyping import Float
from torch import Tensor, nn

from repae.config import UserError
from repae.models import Bundle, Denoiser, LatentNorm, SiT, SiTConfig, TinyConfig, VariationalAutoencoder


def bundle(channels=3, vae=None, **changes) -> Bundle:
    vae = vae or TinyConfig().build(channels)
    sit = {"input_size": 4, "in_channels": vae.latent_channels, "hidden_size": 12, "depth": 1, "num_heads": 3}
    norm = LatentNorm(vae.latent_channels)
    norm.set_statistics(torch.full((vae.latent_channels,), 0.5), torch.full((vae.latent_channels,), 3.0))
    denoiser = Denoiser(SiT(SiTConfig(**(sit | {"num_classes": 10} | changes))), [], 1, 8)
    nn.init.normal_(denoiser.backbone.final_layer.linear.weight)
    return Bundle("live", denoiser, vae, norm)


def pictures(channels=3):
    return torch.randint(0, 256, (2, channels, 16, 16), dtype=torch.uint8)


class Pixels(VariationalAutoencoder):
    """Latents that are the pixels: mean the image, no spread."""

    def __init__(self) -> None:
        super().__init__(latent_channels=3, factor=1, image_channels=3)

    def moments(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b kk m n"]:
        return torch.cat((images, torch.full_like(images, -30.0)), dim=1)

    def decode(self, z: Float[Tensor, "b k m n"]) -> Float[Tensor, "b c h w"]:
        return z

    def repeated_parts(self) -> list[nn.Module]:
        return [self]


def test_every_level_comes_back():
    """All 256 levels through encode, normalise, denormalise, decode and rounding; reconstruction likewise."""
    exact = bundle(vae=Pixels(), input_size=16)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    x = exact.encode(levels, torch.zeros(1, 3, 16, 16))
    assert torch.equal(exact.decode(x), levels) and torch.equal(exact.decode(x.double()), levels)
    assert torch.equal(exact.reconstruct(levels), levels)


def test_rounding_has_no_bias():
    """Colours between two levels go to the nearer one, so their mean is kept; beyond -1..1 they are cut."""
    exact = bundle(vae=Pixels(), input_size=100)
    z = torch.rand(1, 3, 100, 100) * 1.9 - 0.95
    images = exact.decode(exact.latent_norm.eval()(z))
    assert abs(images.double().mean() - ((z.double() + 1) * 127.5).mean()) < 0.02
    extremes = torch.tensor([-5.0, 5.0])[:, None, None, None].expand(2, 3, 1, 1)
    assert exact.decode(exact.latent_norm(extremes))[:, 0, 0, 0].tolist() == [0, 255]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("training", [True, False])
def test_it_leaves_no_trace(channels, training):
    """No gradient, eval mode inside, every module's mode and every statistic as before; grey or colour."""
    live = bundle(channels, class_dropout_prob=1.0)
    parts = (live.denoiser, live.vae, live.latent_norm)
    for part in parts:
        part.train(training)
    live.vae.encoder[2].eval()
    modes = [module.training for part in parts for module in part.modules()]
    before = {name: value.clone() for name, value in live.latent_norm.state_dict().items()}
    images, noise = pictures(channels), torch.randn(2, *live.latent_shape)
    x = live.encode(images, noise)
    assert x.shape == noise.shape and not x.requires_grad
    assert live.decode(x).shape == live.reconstruct(images).shape == images.shape
    assert live.decode(x).dtype == torch.uint8
    y = torch.tensor([1, 2])
    velocity = live.velocity(x, torch.rand(2), y)
    assert velocity.shape == x.shape and not velocity.requires_grad
    assert [module.training for part in parts for module in part.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in live.latent_norm.state_dict().items())


def test_labels_are_not_dropped():
    """Even while the live denoiser is in train mode with every label dropped."""
    live = bundle(class_dropout_prob=1.0)
    nn.init.normal_(live.denoiser.backbone.final_layer.adaLN_modulation[1].weight)
    x, t, y = torch.randn(2, *live.latent_shape), torch.rand(2), torch.tensor([1, 2])
    live.denoiser.train()
    assert torch.equal(live.velocity(x, t, y), live.denoiser.eval().velocity(x, t, y))


def test_it_knows_its_shapes():
    """What a sampler asks for."""
    live = bundle(1)
    assert (live.latent_shape, live.image_channels, live.null_label, live.num_classes) == ((4, 4, 4), 1, 10, 10)
    assert bundle(class_dropout_prob=0.0).null_label is None


def test_parts_that_do_not_belong_together():
    """Other latent channels are refused when the bundle is made."""
    with refused(UserError, "autoencoder", "denoiser", "4, 4 and 6", "latent channels", "in_channels"):
        bundle(in_channels=6)
