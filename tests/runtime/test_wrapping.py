"""Compilation in place, on one process; the parallel part stands in test_distributed."""

import pytest
import torch
from torch import nn

from repae.models import Denoiser, PatchGAN, PatchGANConfig, TinyConfig
from repae.models.backbones import LightningBackbone, SiTBackbone
from repae.runtime.ema import EMA, EmaConfig
from repae.runtime.parallel import ParallelPlan, Stacked, parallelise, synchronise, unwrap

BACKBONES = (SiTBackbone, LightningBackbone)
CPU = torch.device("cpu")


class Blocks(Stacked):
    """Three equal blocks, of which the module says that they are what to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def repeated_parts(self):
        return list(self.blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_without_compilation_a_single_process_wraps_nothing():
    """The very same object, uncompiled."""
    module = Blocks()
    assert parallelise(module, ParallelPlan(CPU)) is module
    assert all(part._compiled_call_impl is None for part in module.modules())
    assert unwrap(module) is module
    synchronise([module], on=False)


def test_regional_compilation_takes_the_parts_that_a_module_names():
    """The blocks and nothing around them; names of parameters stay."""
    module = Blocks()
    names = list(module.state_dict())
    assert parallelise(module, ParallelPlan(CPU, compile=True)) is module
    assert module._compiled_call_impl is None
    assert all(block._compiled_call_impl is not None for block in module.blocks)
    assert list(module.state_dict()) == names


def test_an_average_of_what_is_compiled_is_plain():
    """Averages are built afterwards: they follow the weights and take nothing else over."""
    module = parallelise(Blocks(), ParallelPlan(CPU, compile=True))
    average = EMA(module, EmaConfig(decay=0.0))
    assert all(part._compiled_call_impl is None for part in average.module.modules())
    with torch.no_grad():
        module.blocks[0].weight.fill_(3.0)
    average.update()
    assert all(map(torch.equal, average.module.parameters(), module.parameters()))


@pytest.mark.parametrize(
    "module",
    [
        PatchGAN(PatchGANConfig(ndf=4, n_layers=1)),
        TinyConfig(base_channels=8).build(),
        *(Denoiser(kind(hidden_size=8, depth=2, num_heads=2).sized(4, 4, 3).build(), [5], 1, 4) for kind in BACKBONES),
    ],
    ids=lambda module: type(getattr(module, "backbone", module)).__name__,
)
def test_every_player_names_its_parts(module):
    """Modules of its own, none inside another, which hold most of its weights: what one would shard or recompute."""
    parts, inside = module.repeated_parts(), list(module.modules())
    names = {id(part) for part in parts}
    assert parts and all(any(part is own for own in inside) for part in parts)
    assert not any(id(below) in names for part in parts for below in part.modules() if below is not part)
    held = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert held > 0.3 * sum(parameter.numel() for parameter in module.parameters())
