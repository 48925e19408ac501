"""PatchGAN: the reference's shape, number for number, and float32 whatever surrounds it."""

import pytest
import torch
from errors import refused
from torch import nn

from repae.config import UserError
from repae.models import ActNorm, GlobalBatchNorm2d, PatchGAN, PatchGANConfig


def convolutions(model: PatchGAN) -> list[nn.Conv2d]:
    return [layer for layer in model.main if isinstance(layer, nn.Conv2d)]


def test_the_published_discriminator():
    """2,765,633 parameters; widths, strides and biases layer by layer."""
    model = PatchGAN(PatchGANConfig())
    layers = convolutions(model)
    assert sum(parameter.numel() for parameter in model.parameters()) == 2_765_633
    assert [layer.out_channels for layer in layers] == [64, 128, 256, 512, 1]
    assert [layer.stride[0] for layer in layers] == [2, 2, 2, 1, 1]
    assert [layer.bias is not None for layer in layers] == [True, False, False, False, True]
    assert all(layer.kernel_size == (4, 4) and layer.padding == (1, 1) for layer in layers)


def test_with_actnorm_every_convolution_has_a_bias():
    """And no batch norm is left."""
    model = PatchGAN(PatchGANConfig(norm="act"))
    assert all(layer.bias is not None for layer in convolutions(model))
    assert sum(isinstance(layer, ActNorm) for layer in model.main) == 3
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in model.modules())


def test_width_stops_at_eight_times():
    """Four strided layers: 64, 128, 256, 512, 512, 1."""
    assert [layer.out_channels for layer in convolutions(PatchGAN(PatchGANConfig(n_layers=4)))] == [
        *(64, 128, 256, 512, 512, 1)
    ]


@pytest.mark.parametrize(("side", "logits"), [(256, 30), (512, 62), (24, 1)])
def test_the_side_of_the_logits(side, logits):
    """H / 8 - 2 for three strided layers, down to the smallest image that is allowed."""
    config = PatchGANConfig()
    assert config.smallest_side == 24
    with torch.device("meta"):
        assert PatchGAN(config)(torch.zeros(2, 3, side, side)).shape == (2, 1, logits, logits)


def test_images_too_small_for_it():
    """Refused with the side that it needs."""
    with refused(UserError, "23x40", 24, "lower n_layers"):
        PatchGAN(PatchGANConfig())(torch.zeros(1, 3, 23, 40))


def test_a_logit_sees_70_pixels():
    """The receptive field of one logit in the middle."""
    model = PatchGAN(PatchGANConfig(ndf=2)).eval()
    for layer in model.main:
        if isinstance(layer, nn.Conv2d):
            nn.init.ones_(layer.weight)
    image = torch.ones(1, 3, 128, 128, requires_grad=True)
    model(image)[0, 0, 7, 7].backward()
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


def test_initial_weights():
    """N(0, .02) in convolutions, N(1, .02) and 0 in batch norms; ActNorm as it is."""
    torch.manual_seed(0)
    model = PatchGAN(PatchGANConfig())
    for layer in convolutions(model)[1:4]:
        assert abs(layer.weight.mean()) < 1e-3 and abs(layer.weight.std() - 0.02) < 1e-3
    norms = [layer for layer in model.main if isinstance(layer, GlobalBatchNorm2d)]
    weights = torch.cat([layer.weight for layer in norms])
    assert len(norms) == 3 and abs(weights.mean() - 1) < 3e-3 and abs(weights.std() - 0.02) < 3e-3
    assert not any(layer.bias.any() for layer in norms)
    acts = [layer for layer in PatchGAN(PatchGANConfig(norm="act")).main if isinstance(layer, ActNorm)]
    assert all((layer.scale == 1).all() and not layer.loc.any() for layer in acts)


@pytest.mark.parametrize("norm", ["batch", "act"])
def test_autocast_does_not_enter(norm):
    """Half-precision images, under autocast or not, are classified in float32; one channel or three."""
    model = PatchGAN(PatchGANConfig(in_channels=1, ndf=8, n_layers=2, norm=norm)).eval()
    images = torch.randn(2, 1, 16, 16).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, model(images.float()))


def test_alone_its_batch_norm_is_torchs():
    """Same state, same values, bit for bit."""
    ours, theirs = GlobalBatchNorm2d(4), nn.BatchNorm2d(4)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 4, 5, 5)
    for training in (True, False):
        assert torch.equal(ours.train(training)(x), theirs.train(training)(x))
