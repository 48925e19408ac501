"""The joint step on a GPU waits for nothing."""

from __future__ import annotations

import pytest
import torch
from players import IMAGES, WHOLE, batch, setup
from players import step as build

from repae.runtime.precision import Precision

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("kind", ["sit", "lightning"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_joint_step_never_waits_for_the_device(precision: str, kind: str) -> None:
    """Metrics, statistics, clipping, LeCam and averages stay on the device until the logging interval."""
    cuda = torch.device("cuda")
    sizes = setup().backbone.model_dump(exclude={"kind"})
    game = build(setup(backbone={"kind": kind, **sizes}), precision=precision, device=cuda)
    images = batch().to(cuda)
    arithmetic = Precision(precision, cuda)

    def train(number: int) -> dict[str, torch.Tensor]:
        with arithmetic.autocast():
            return game(images, number, WHOLE)

    for number in range(3):
        train(number)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        metrics = train(3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(bool(value.isfinite()) for value in metrics.values()) and len(images.images) == IMAGES
