"""Arithmetic of a run: float32, or bfloat16 or float16 where that is safe while the weights stay float32."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch.amp.grad_scaler import GradScaler

from repae.config import UserError, suggest

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """How the forward passes of one run compute on one device.

    MPS has no complete autocast, so a run there computes in float32 whatever was asked for, says so once, and has
    ``name`` "fp32".

    Attributes:
        name: what is used: "fp32", "bf16" or "fp16".
        dtype: the dtype of matrix products and convolutions.
        device: where.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        if name not in _DTYPES:
            raise UserError(f"precision {name!r} is unknown; allowed: {', '.join(_DTYPES)}{suggest(name, _DTYPES)}")
        if device.type == "mps" and name != "fp32":
            logging.getLogger(__name__).warning("precision %s is not available on MPS; this run computes in fp32", name)
            name = "fp32"
        if device.type == "cuda" and name == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise UserError("precision 'bf16' is not available on this GPU; use 'fp16' or 'fp32'")
        self.name = name
        self.dtype = _DTYPES[name]
        self.device = device

    def autocast(self) -> AbstractContextManager[None]:
        """Context for forward passes; open a new one for each, and leave it before the backward pass."""
        if self.name == "fp32":
            return nullcontext()
        # No cache of cast weights: inside one context it would outlive an optimiser's step or a frozen pass.
        return torch.autocast(self.device.type, self.dtype, cache_enabled=False)  # type: ignore[return-value]

    def scaler(self) -> GradScaler | None:
        """A new loss scaler for fp16, one for each optimiser (a shared one loses gradients); None otherwise."""
        return GradScaler(self.device.type) if self.name == "fp16" else None


@contextmanager
def float32() -> Iterator[None]:
    """Autocast off, on the CPU and on CUDA alike: losses and statistics are computed in what they are given."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def enable_tf32(on: bool) -> None:
    """Allow TensorFloat-32 (10-bit mantissa) in float32 products and convolutions on CUDA; no effect elsewhere."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on
