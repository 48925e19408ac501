"""The autoencoder's objective: closed forms, switches, and what is summed is what is logged."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from repae.losses.adversarial import LeCam, generator_loss, hinge_loss
from repae.losses.autoencoder import AutoencoderLoss, AutoencoderLossConfig
from repae.losses.perceptual import feature_distance
from repae.losses.reconstruction import flow_matching_loss, kl_divergence, reconstruction_loss
from repae.losses.terms import Terms
from repae.models.autoencoders import AutoencoderOutput


def images(seed: int = 0) -> torch.Tensor:
    return torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def moments(seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(seed))
    return both[:, :2].contiguous(), both[:, 2:].contiguous()


def latent(seed: int = 1, **changes: torch.Tensor | None) -> AutoencoderOutput:
    """What an autoencoder made of some images."""
    mean, logvar = moments()
    return AutoencoderOutput(mean, logvar, mean, images(seed))._replace(**changes)


def discriminate(x: torch.Tensor) -> torch.Tensor:
    return F.avg_pool2d(x, 4).mean(1, keepdim=True) * 3 - 0.2


def test_kl_equals_torch_and_sums_over_the_latent() -> None:
    """The KL is summed over channels and space per image; a mean would make the weight 1e-6 vanish."""
    mean, logvar = moments()
    expected = torch_kl(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(kl_divergence(mean, logvar), expected)
    large = torch.full((1, 1, 1, 1), 300.0, dtype=torch.float16)
    assert torch.isfinite(kl_divergence(large, torch.zeros_like(large))).all(), "squares in half precision overflow"


def test_reconstruction_and_flow_losses_are_means() -> None:
    """Both are means over their elements, per image for the flow, as the published weights assume."""
    a, b = images(0), images(1)
    torch.testing.assert_close(reconstruction_loss(a, b, "l1"), (a - b).abs().mean())
    torch.testing.assert_close(reconstruction_loss(a, b, "l2"), (a - b).square().mean())
    torch.testing.assert_close(flow_matching_loss(a, b).mean(), F.mse_loss(a, b))


def test_gan_losses_at_known_logits() -> None:
    """Zero logits cost the discriminator exactly 1; a confident right one costs nothing."""
    zero, three = torch.zeros(2, 1, 3, 3), torch.full((2, 1, 3, 3), 3.0)
    assert float(hinge_loss(zero, zero)) == 1.0
    assert float(hinge_loss(three, -three)) == 0.0
    assert float(generator_loss(three)) == -3.0


def test_lecam_uses_the_means_before_it_moves_them() -> None:
    """relu(real - ema_fake)^2 + relu(ema_real - fake)^2 with the old means; batch means, not patches."""
    lecam = LeCam(decay=0.9)
    lecam.ema_real.fill_(0.3)
    lecam.ema_fake.fill_(-0.2)
    real, fake = torch.tensor([1.0, -0.6]).view(2, 1, 1, 1), torch.tensor([0.1, 0.3]).view(2, 1, 1, 1)
    expected = (0.2 + 0.2) ** 2 + (0.3 - 0.2) ** 2
    assert float(lecam(real, fake)) == pytest.approx(expected)
    assert float(lecam.ema_real) == pytest.approx(0.3)
    lecam.update(real, fake)
    assert float(lecam.ema_real) == pytest.approx(0.9 * 0.3 + 0.1 * 0.2)
    assert float(lecam.ema_fake) == pytest.approx(0.9 * -0.2 + 0.1 * 0.2)


@pytest.mark.parametrize("logvar_init", [0.0, 1.0])
def test_total_is_the_sum_of_the_logged_terms(logvar_init: float) -> None:
    """reconstruction / exp(logvar) + perceptual + KL + weighted GAN, each logged as it was summed."""
    config = AutoencoderLossConfig(logvar_init=logvar_init, kl_weight=0.01, perceptual_weight=0.5)
    loss = AutoencoderLoss(config, perceptual=partial(feature_distance, lambda x: [x, F.avg_pool2d(x, 2)]))
    terms = loss.generator(images(0), latent(), discriminate, step=0)
    log = terms.log()
    names = ("reconstruction_loss", "perceptual_loss", "kl_loss", "weighted_gan_loss")
    torch.testing.assert_close(terms.total, torch.stack([log[name] for name in names]).sum())
    pixel = (images(0) - images(1)).abs().mean() / math.exp(logvar_init)
    torch.testing.assert_close(log["reconstruction_loss"], pixel)
    torch.testing.assert_close(log["weighted_gan_loss"], -0.1 * discriminate(images(1)).mean())
    torch.testing.assert_close(log["gan_loss"], -discriminate(images(1)).mean())


def test_a_codebook_takes_the_place_of_the_kl() -> None:
    """quantizer_weight (||sg z - e||^2 + commitment_cost ||z - sg e||^2), its summands logged and not summed again."""
    z, codes = moments()[0].requires_grad_(), moments(7)[0].requires_grad_()
    config = AutoencoderLossConfig(
        quantizer_weight=0.5, commitment_cost=0.3, reconstruction_weight=0, perceptual_weight=0
    )
    terms = AutoencoderLoss(config).generator(images(0), latent(mean=z, logvar=None, codes=codes), None, step=0)
    log, squares = terms.log(), (z - codes).detach().square().mean()
    assert "kl_loss" not in log
    torch.testing.assert_close(log["codebook_loss"], squares)
    torch.testing.assert_close(log["commitment_loss"], 0.3 * squares)
    torch.testing.assert_close(log["quantizer_loss"], 0.5 * 1.3 * squares)
    torch.testing.assert_close(terms.total.detach(), log["quantizer_loss"])
    terms.total.backward()
    gradient = (z - codes).detach() / z.numel()
    assert z.grad is not None and codes.grad is not None
    torch.testing.assert_close(z.grad, 0.3 * gradient)
    torch.testing.assert_close(codes.grad, -gradient)


def test_a_deterministic_latent_is_bound_by_nothing() -> None:
    """No KL of what has no spread, which would be infinite."""
    terms = AutoencoderLoss(AutoencoderLossConfig(perceptual_weight=0)).generator(
        images(0), latent(logvar=None), None, step=0
    )
    log = terms.log()
    assert not {"kl_loss", "quantizer_loss"} & log.keys()
    torch.testing.assert_close(terms.total, log["reconstruction_loss"])


def test_discriminator_start_silences_the_generator_term_but_not_lecam() -> None:
    """Before its start the GAN costs the autoencoder nothing and is not evaluated; LeCam already trains D."""
    config = AutoencoderLossConfig(discriminator_start=2, lecam_regularization_weight=0.5, perceptual_weight=0)
    loss = AutoencoderLoss(config)
    assert loss.lecam is not None
    loss.lecam.ema_real.fill_(5.0)

    def forbidden(x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the discriminator was run for a term of weight zero")

    before = loss.generator(images(0), latent(), forbidden, step=1).log()
    assert float(before["weighted_gan_loss"]) == 0.0
    terms = loss.discriminator(images(0), images(1), discriminate, step=1)
    assert float(terms.log()["hinge_loss"]) == 0.0
    torch.testing.assert_close(terms.total, terms.log()["lecam_loss"])
    assert float(terms.total) > 0
    after = loss.discriminator(images(0), images(1), discriminate, step=2)
    assert float(after.log()["hinge_loss"]) > 0


def test_the_discriminator_sees_neither_graph() -> None:
    """Its objective must not reach the autoencoder, nor ask for gradients of real images."""
    reconstruction = images(1).requires_grad_()
    weight = torch.ones(1, requires_grad=True)
    terms = AutoencoderLoss(AutoencoderLossConfig(perceptual_weight=0)).discriminator(
        images(0), reconstruction, lambda x: discriminate(x) * weight, step=0
    )
    terms.total.backward()
    assert reconstruction.grad is None and weight.grad is not None


def test_feature_distance_ignores_scale_of_features_and_gradients_of_the_real_image() -> None:
    """Channel-normalised features: scaling a layer changes nothing; the real image is evaluated without a graph."""
    real, fake = images(0).requires_grad_(), images(1).requires_grad_()
    distance = feature_distance(lambda x: [x], fake, real)
    torch.testing.assert_close(feature_distance(lambda x: [x * 9], fake, real), distance)
    distance.backward()
    assert real.grad is None and fake.grad is not None
    assert float(feature_distance(lambda x: [x], images(0), images(0))) == 0.0


def test_terms_of_weight_zero_are_logged_and_never_summed() -> None:
    """An infinite term of weight zero must not turn the total into NaN."""
    terms = Terms()
    terms.add("a", torch.tensor(2.0), 3.0)
    terms.add("b", torch.tensor(float("inf")), 0.0)
    assert float(terms.total) == 6.0
    assert math.isinf(float(terms.log()["b"]))
