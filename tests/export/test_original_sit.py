"""SiT's time runs the other way: what is imported is the same field, with time and velocity turned round."""

from __future__ import annotations

import torch
from torch import Tensor

from repae.export.original_sit import to_our_time, without_sigma
from repae.models import SiT, SiTConfig
from repae.models.backbones.shared import FinalLayer

CONFIG = SiTConfig(input_size=4, in_channels=2, hidden_size=16, depth=2, num_heads=2, num_classes=3)


def original(channels: int) -> SiT:
    """A network as SiT has it: nothing turned, and as many output channels as asked for."""
    sit = SiT(CONFIG)
    sit.final_layer = FinalLayer(CONFIG.hidden_size, CONFIG.patch_size, channels, sit.final_layer.norm_final)
    source = torch.Generator().manual_seed(0)
    for parameter in sit.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=source))
    return sit.double().eval()


def points() -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(1)
    x = torch.randn(5, 2, 4, 4, generator=source, dtype=torch.float64)
    return x, torch.tensor([0.0, 0.04, 0.37, 0.9, 1.0], dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])


@torch.no_grad()
def test_the_velocity_is_minus_that_of_the_other_end() -> None:
    """v(x, t, y) = -v'(x, 1 - t, y) at both ends and between, to rounding."""
    theirs, ours = original(2), SiT(CONFIG).double().eval()
    ours.load_state_dict(to_our_time(theirs.state_dict()))
    x, t, y = points()
    assert torch.allclose(ours(x, t, y), -theirs(x, 1 - t, y), rtol=0, atol=1e-12)
    assert not torch.allclose(ours(x, t, y), theirs(x, t, y), atol=1e-2)


@torch.no_grad()
def test_the_unread_half_of_the_output_is_left_out() -> None:
    """SiT splits its output into velocity and a variance that nothing uses, by channel after the patches are joined."""
    theirs, ours = original(4), SiT(CONFIG).double().eval()
    ours.load_state_dict(without_sigma(theirs.state_dict(), 2))
    x, t, y = points()
    tokens, condition = theirs.embed(x, t, y)
    velocity, _ = theirs.final(theirs.run(tokens, condition), condition).chunk(2, dim=1)
    assert torch.allclose(ours(x, t, y), velocity, rtol=0, atol=1e-13)


def test_turning_twice_is_nothing() -> None:
    """The reflection is its own inverse."""
    state = original(2).state_dict()
    twice = to_our_time(to_our_time(state))
    assert all(torch.allclose(twice[name], value, rtol=0, atol=1e-14) for name, value in state.items())
