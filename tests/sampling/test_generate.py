from __future__ import annotations

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.flow import Euler, EulerMaruyama, Guidance, Heun, LinearPath
from repae.runtime.precision import Precision
from repae.runtime.seeds import generator
from repae.sampling import generate, image_noise, step_noise

CPU = torch.device("cpu")
FP32 = Precision("fp32", CPU)


class Elementwise:
    """A source whose velocity treats every number alone: its images show the noise bit for bit."""

    latent_shape = (2, 4, 4)
    null_label: int | None = 10

    def __init__(self):
        self.batches = []

    def velocity(self, x, t, y):
        self.batches.append(len(x))
        assert not torch.is_grad_enabled()
        return x * t[:, None, None, None] + y[:, None, None, None] / 10

    def decode(self, x):
        return (x * 40 + 128).clamp(0, 255).to(torch.uint8)


LABELS = torch.arange(10).repeat(2)
SAMPLERS = [Euler(steps=5), Heun(steps=4), EulerMaruyama(steps=6)]


def _images(source=None, labels=LABELS, **changes):
    settings = {"sampler": Euler(steps=5), "path": LinearPath(), "precision": FP32, "seed": 3} | changes
    return generate(source or Elementwise(), labels, **settings)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.kind)
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_an_image_does_not_depend_on_its_batch(sampler, scale):
    """Image i is a function of (seed, i): any batch size, and any part of the list, gives the same bits."""
    guidance = Guidance(scale=scale, high=0.85)
    whole = _images(sampler=sampler, guidance=guidance, batch_size=20)
    for batch_size in (1, 3, 256):
        assert torch.equal(_images(sampler=sampler, guidance=guidance, batch_size=batch_size), whole)
    part = _images(labels=LABELS[7:12], sampler=sampler, guidance=guidance, first=7)
    assert torch.equal(part, whole[7:12])


def test_noise_is_a_function_of_seed_image_and_step():
    """The streams of images and of steps are those of their keys, and no two are equal."""
    shape = (2, 4, 4)
    assert torch.equal(
        image_noise(3, range(5, 8), shape)[1], torch.randn(shape, generator=generator(CPU, 3, "image", 6))
    )
    drawn = torch.cat(
        [image_noise(s, range(3), shape) for s in (0, 1)] + [step_noise(0, range(3), k, shape) for k in (0, 1)]
    )
    assert len({tuple(row.flatten().tolist()) for row in drawn}) == 12


def test_noise_is_standard_normal():
    """Many short streams together are as normal as one long one (seeding gives no pattern)."""
    noise = image_noise(0, range(4000), (4, 4, 4)).double()
    assert abs(float(noise.mean())) < 5 / 256_000**0.5
    assert abs(float(noise.var()) - 1) < 5 * (2 / 256_000) ** 0.5
    between = noise.flatten(1).mean(0)
    assert float(between.abs().max()) < 5 / 4000**0.5


def test_other_seeds_and_labels_give_other_images():
    """Neither is ignored."""
    base = _images()
    assert not torch.equal(_images(seed=4), base)
    assert not torch.equal(_images(labels=LABELS.flip(0)), base)


def test_guidance_doubles_batches_inside_its_interval_only():
    """Evaluations outside the interval cost one pass."""
    source = Elementwise()
    _images(source, guidance=Guidance(scale=2.0, low=0.0, high=0.5), sampler=Euler(steps=4))
    assert source.batches == [20, 20, 40, 40]


def test_guidance_without_a_null_class_is_refused():
    """A model without label dropout cannot be guided."""
    source = Elementwise()
    source.null_label = None
    with refused(UserError, "guidance.scale", 2.0, "guidance.scale 1", "class_dropout_prob above 0"):
        _images(source, guidance=Guidance(scale=2.0))


def test_batches_come_in_order_and_no_global_random_number_is_used():
    """Sampling in the middle of a training does not disturb it."""
    before = torch.get_rng_state()
    settings = {"sampler": EulerMaruyama(steps=3), "path": LinearPath(), "precision": FP32}
    assert torch.equal(
        generate(Elementwise(), LABELS, batch_size=8, **settings), generate(Elementwise(), LABELS, **settings)
    )
    assert torch.equal(torch.get_rng_state(), before)


def test_bf16_network_is_computed_under_autocast():
    """`precision` reaches the network and not the state: the result differs a little and stays near."""

    class Matrix(Elementwise):
        def velocity(self, x, t, y):
            weight = torch.linspace(-0.3, 0.3, 16).reshape(4, 4)
            out = x @ weight
            self.batches.append(out.dtype)
            return out

    low, high = Matrix(), Matrix()
    images = [_images(source, precision=Precision(name, CPU)) for source, name in ((low, "bf16"), (high, "fp32"))]
    assert set(low.batches) == {torch.bfloat16} and set(high.batches) == {torch.float32}
    assert int((images[0].int() - images[1].int()).abs().max()) <= 2


@pytest.mark.parametrize(
    ("labels", "batch_size", "facts"),
    [(LABELS[:0], 4, ["0 labels", "batches of 4"]), (LABELS, 0, ["20 labels", "batches of 0"])],
)
def test_nothing_to_do_is_refused(labels, batch_size, facts):
    """An empty request is a mistake that is named."""
    with refused(UserError, *facts, "at least 1"):
        _images(labels=labels, batch_size=batch_size)
