"""LatentNorm against torch's batch norm, its exact inverse, and batches that it must refuse."""

import pytest
import torch
from errors import refused
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from repae.config import UserError
from repae.models import LatentNorm


def latents(channels=3, batch=4, offset=2.0):
    return torch.randn(batch, channels, 4, 4) * torch.linspace(0.1, 5, channels)[:, None, None] + offset


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_it_is_batch_norm_without_affine_part(momentum):
    """Values, gradients and running statistics over several training batches, then eval mode."""
    ours = LatentNorm(3, eps=1e-4, momentum=momentum).double()
    theirs = nn.BatchNorm2d(3, eps=1e-4, momentum=momentum, affine=False).double()
    weight = torch.randn(4, 3, 4, 4).double()
    for training in (True, True, True, False):
        z = latents().double()
        results = []
        for norm in (ours.train(training), theirs.train(training)):
            source = z.clone().requires_grad_(True)
            out = norm(source)
            (weight * out).sum().backward()
            results.append((out, source.grad))
        for one, other in zip(*results):
            torch.testing.assert_close(one, other)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert ours.num_batches_tracked == 3


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_denormalise_is_the_exact_inverse(std, mean):
    """eps included, also where the deviation is as small as eps; in train mode it uses the running statistics too."""
    norm = LatentNorm(2).double()
    norm.set_statistics(torch.full((2,), mean).double(), torch.full((2,), std).double())
    z = torch.randn(3, 2, 4, 4).double() * std + mean
    torch.testing.assert_close(norm.eval().denormalise(norm(z)), z, rtol=1e-9, atol=1e-9)
    assert torch.equal(norm.train().denormalise(z), norm.eval().denormalise(z))


def test_eval_mode_moves_nothing():
    """Neither statistics nor counters."""
    norm = LatentNorm(3).eval()
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    norm(latents())
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_batch_that_is_not_finite_is_refused(bad):
    """The statistics keep their values bit for bit, the counter rises, and the next batch is tracked as usual."""
    norm, clean = LatentNorm(3).train(), latents()
    norm(clean)
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    spoilt = clean.clone()
    spoilt[1, 2, 0, 0] = bad
    norm(spoilt)
    after = norm.state_dict()
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert torch.equal(after[name], before[name])
    assert norm.refused == 1
    norm(clean)
    assert norm.num_batches_tracked == 2 and norm.refused == 1 and norm.running_mean.isfinite().all()


def test_detached_latents_record_nothing():
    """The denoiser's update costs no graph through the normaliser; an ablation that needs one gets it."""
    norm = LatentNorm(3).train()
    assert norm(latents()).grad_fn is None
    assert norm(latents().requires_grad_(True)).grad_fn is not None
    assert not any(buffer.requires_grad for buffer in norm.buffers())


def test_a_frozen_pass_still_carries_the_gradient():
    """In eval mode dx/dz is one over the running deviation: what the alignment loss sends into the autoencoder."""
    norm = LatentNorm(2).eval()
    norm.set_statistics(torch.tensor([1.0, -2.0]), torch.tensor([0.5, 4.0]))
    z = torch.randn(2, 2, 3, 3, requires_grad=True)
    norm(z).sum().backward()
    expected = (torch.tensor([0.5, 4.0]).square() + 1e-4).rsqrt()
    torch.testing.assert_close(z.grad, expected[None, :, None, None].expand_as(z))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_always_float32(training, dtype):
    """Half-precision latents are normalised in float32, autocast or not."""
    norm = LatentNorm(3).train(training)
    z = latents().to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(z)
    assert out.dtype == torch.float32
    assert torch.equal(out, LatentNorm(3).train(training)(z.float()))


def test_one_value_has_no_variance():
    """A single value per channel is refused in words in train mode and fine in eval mode."""
    norm = LatentNorm(3)
    with refused(UserError, "one latent value", "variance", "larger batches"):
        norm.train()(torch.zeros(1, 3, 1, 1))
    norm.eval()(torch.zeros(1, 3, 1, 1))


def test_statistics_go_in_and_out():
    """As mean and standard deviation of raw latents."""
    norm = LatentNorm(2)
    mean, std = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5])
    norm.set_statistics(mean, std)
    assert torch.equal(norm.statistics()[0], mean) and torch.equal(norm.statistics()[1], std)


@pytest.mark.parametrize(
    ("mean", "std", "facts"),
    [
        ([0.0], [1.0], ["(1,)", "2 channels"]),
        ([0.0, 0.0], [1.0, 0.0], ["above 0", "[1.0, 0.0]"]),
        ([0.0, float("nan")], [1.0, 1.0], ["finite", "[0.0, nan]"]),
        ([0.0] * 2, [-1.0] * 2, ["above 0", "[-1.0, -1.0]"]),
    ],
)
def test_statistics_that_cannot_be(mean, std, facts):
    """Another channel count, no spread, not finite."""
    with refused(UserError, "latent statistics", *facts):
        LatentNorm(2).set_statistics(torch.tensor(mean), torch.tensor(std))
