"""LightningDiT where the original's numbers (tests/golden) do not reach: sizes, training, precision, compilation."""

from __future__ import annotations

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.models import Denoiser, LightningConfig, LightningDiT
from repae.models.backbones import LightningBackbone
from repae.models.backbones.lightning import rotation_table
from repae.models.backbones.shared import rotated

SMALL = LightningConfig(
    input_size=8, patch_size=2, in_channels=3, hidden_size=16, depth=3, num_heads=2, num_classes=5, qk_norm=True
)


def awake(config: LightningConfig = SMALL) -> LightningDiT:
    """With nothing that begins at zero left there."""
    model = LightningDiT(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(4, 3, 8, 8), torch.rand(4), torch.tensor([0, 4, 2, 5])


@pytest.mark.parametrize(
    ("name", "millions"),
    [("B/1", 130), ("B/2", 131), ("L/2", 458), ("XL/1", 675), ("XL/2", 675)],
)
def test_published_sizes(name: str, millions: int) -> None:
    """Every published name, and the 675 millions that its authors count in XL."""
    with torch.device("meta"):
        model = LightningConfig.preset(f"LightningDiT-{name}", input_size=16, in_channels=32).build()
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == millions
    assert LightningBackbone.preset(f"LightningDiT-{name}").sized(16, 32, 1000) == model.config


def test_it_begins_as_nothing() -> None:
    """adaLN-Zero: every block is the identity, the velocity zero; any gradient reaches the last layer first."""
    model, (x, t, y) = LightningDiT(SMALL).eval(), inputs()
    torch.testing.assert_close(model.features(x, t, y, 3), model.features(x, t, y, 0), rtol=0, atol=0)
    assert not model(x, t, y).any()


def test_rotations_keep_lengths_and_see_differences_only() -> None:
    """RoPE's property: the product of two rotated vectors depends on the difference of their places alone."""
    side = 5
    table = rotation_table(8, side).double()
    q, k = (torch.randn(8, dtype=torch.float64).expand(1, 1, side * side, 8) for _ in range(2))
    turned = rotated(q, table)
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))
    products = (turned @ rotated(k, table).transpose(-2, -1)).reshape(side, side, side, side)
    torch.testing.assert_close(products[0, 0, 1, 2], products[2, 1, 3, 3])
    assert (products[0, 0, 1, 2] - products[0, 0, 2, 1]).abs() > 1e-3


def test_heads_that_cannot_rotate() -> None:
    """Both numbers, and what is needed."""
    with refused(UserError, "hidden_size 24", "num_heads 4", "width 6", "multiple of 4"):
        LightningConfig(hidden_size=24, num_heads=4)
    with refused(UserError, "'LightningDiT-L/1'", "LightningDiT-L/2"):
        LightningConfig.preset("LightningDiT-L/1")


@pytest.mark.parametrize("fused", [True, False])
def test_half_precision_is_near(fused: bool) -> None:
    """Under autocast and as a whole in bfloat16: the same field up to that precision."""
    model, (x, t, y) = awake(SMALL.replace(fused_attn=fused)).eval(), inputs()
    exact = model(x, t, y)
    with torch.autocast("cpu", torch.bfloat16):
        near = model(x, t, y)
    cast = model.bfloat16()(x.bfloat16(), t, y)
    for found in (near, cast):
        assert (found.float() - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("training", [True, False])
def test_blocks_compile_whole(training: bool, unchecked: None) -> None:
    """Each repeated part without a break, the same velocities and gradients."""
    torch.manual_seed(1)
    plain = Denoiser(awake(), [6], 2, 8)
    torch.manual_seed(1)
    compiled = Denoiser(awake(), [6], 2, 8)
    compiled.load_state_dict(plain.state_dict())
    for part in compiled.backbone.repeated_parts():
        part.compile(backend="eager", fullgraph=True)
    given, drop, results = inputs(), torch.tensor([True, False, False, True]), []
    for model in (plain.train(training), compiled.train(training)):
        velocity, projected = model(*given, drop)
        (velocity.square().mean() + projected[0].square().mean()).backward()
        results.append((velocity, *(parameter.grad for parameter in model.parameters())))
    for one, other in zip(*results):
        torch.testing.assert_close(one, other)
