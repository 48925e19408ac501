"""Compilation in place, on one process; the parallel part stands in test_distributed."""

import torch
from torch import nn

from repae.runtime.parallel import synchronise, unwrap, wrap

CPU = torch.device("cpu")


class Blocks(nn.Module):
    """Three equal blocks, of which the module says that they are what to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(2, 2) for _ in range(3))

    def compile_parts(self):
        return list(self.blocks)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_without_compilation_a_single_process_wraps_nothing():
    """The very same object, uncompiled."""
    module = Blocks()
    assert wrap(module, compile=False, device=CPU) is module
    assert all(part._compiled_call_impl is None for part in module.modules())
    assert unwrap(module) is module
    synchronise([module], on=False)


def test_regional_compilation_takes_the_parts_that_a_module_names():
    """The blocks and nothing around them; names of parameters stay."""
    module = Blocks()
    names = list(module.state_dict())
    assert wrap(module, compile=True, device=CPU) is module
    assert module._compiled_call_impl is None
    assert all(block._compiled_call_impl is not None for block in module.blocks)
    assert list(module.state_dict()) == names


def test_a_module_without_parts_is_compiled_whole():
    """In place as well."""
    module = nn.Linear(2, 2)
    assert wrap(module, compile=True, device=CPU) is module
    assert module._compiled_call_impl is not None
    assert list(module.state_dict()) == ["weight", "bias"]
