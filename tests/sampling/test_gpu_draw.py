"""Sampling on a GPU waits for nothing between the noise and the pixels."""

from __future__ import annotations

import pytest
import torch

from repae.flow import Euler, EulerMaruyama, Guidance, LinearPath
from repae.runtime.precision import Precision
from repae.sampling import generate

pytestmark = pytest.mark.gpu


class Source:
    """A velocity and a decoder on any device; the decoder ends what must not wait."""

    latent_shape = (4, 8, 8)
    null_label = 10

    def velocity(self, x, t, y):
        return x * t[:, None, None, None] + y[:, None, None, None] / 10

    def decode(self, x):
        if x.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        return (x * 40 + 128).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("sampler", [Euler(steps=5), EulerMaruyama(steps=6)], ids=lambda sampler: sampler.kind)
def test_no_step_waits_for_the_device_and_the_images_are_those_of_the_cpu(sampler) -> None:
    """The noise of a step is sent while the device computes the one before."""
    labels, rest = torch.arange(10), {"sampler": sampler, "path": LinearPath(), "guidance": Guidance(scale=2)}
    expected = generate(Source(), labels, precision=Precision("fp32", torch.device("cpu")), **rest)
    cuda = Precision("fp32", torch.device("cuda"))
    generate(Source(), labels, precision=cuda, **rest)
    labels = labels.cuda()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        images = generate(Source(), labels, precision=cuda, **rest)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert int((images.int() - expected.int()).abs().max()) <= 1
