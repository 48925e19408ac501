"""Precision contexts."""

import logging

import pytest
import torch
from errors import assert_tells, refused
from torch import nn

from repae.config import UserError
from repae.runtime.precision import Precision, enable_tf32, float32

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_autocast_computes_in_the_named_dtype(name, dtype):
    """Products in the low precision, weights and their gradients in float32; a scaler for fp16 only, never shared."""
    precision = Precision(name, CPU)
    layer = nn.Linear(3, 3)
    with precision.autocast():
        out = layer(torch.ones(2, 3))
    assert out.dtype == dtype == precision.dtype
    out.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32
    scaler = precision.scaler()
    assert (scaler is not None) == (name == "fp16")
    assert scaler is None or scaler is not precision.scaler()


def test_float32_switches_autocast_off_and_back_on():
    """Losses inside a low-precision pass keep their digits."""
    left, right = torch.randn(4, 4), torch.randn(4, 4)
    with Precision("bf16", CPU).autocast():
        with float32():
            assert (left @ right).dtype == torch.float32
        assert (left @ right).dtype == torch.bfloat16


@pytest.mark.slow
def test_float32_within_a_compiled_function():
    """Without breaking its graph. (The shape checker's own wrappers would break it.)"""
    left, right = torch.randn(4, 4), torch.randn(4, 4)

    @torch.compile(fullgraph=True, backend="eager")
    def product(x, y):
        with float32():
            return x @ y

    with Precision("bf16", CPU).autocast():
        assert product(left, right).dtype == torch.float32


def test_cast_weights_are_not_remembered_over_a_step_or_a_frozen_pass():
    """Several passes and updates within one context see the weights of the moment, and gradients reach them."""
    layer = nn.Linear(2, 2, bias=False)
    with Precision("bf16", CPU).autocast():
        with torch.no_grad():
            before = layer(torch.ones(1, 2))
            layer.weight.add_(1.0)
        after = layer(torch.ones(1, 2))
    assert torch.allclose((after - before).float(), torch.tensor(2.0), atol=0.05)
    assert after.requires_grad


def test_mps_computes_in_fp32_and_says_so(caplog):
    """Autocast is incomplete there: fp32 whatever was asked for."""
    with caplog.at_level(logging.WARNING):
        precision = Precision("fp16", torch.device("mps"))
    assert_tells(caplog.text, "fp16", "MPS", "fp32")
    assert precision.name == "fp32" and precision.scaler() is None
    with precision.autocast():
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32


def test_unknown_precision_is_refused():
    """With the names that are allowed and the nearest one."""
    with refused(UserError, "'f16'", "fp32, bf16, fp16", "did you mean 'fp16'"):
        Precision("f16", CPU)


def test_tf32_switch():
    """Both kinds of float32 arithmetic on CUDA follow it."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for on in (True, False):
            enable_tf32(on)
            assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (on, on)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
