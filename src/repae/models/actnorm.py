"""ActNorm: a per-channel affine map that takes its first values from data (Glow, arXiv 1807.03039, Sec. 3.1)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from repae.config import UserError
from repae.runtime.distributed import global_moments


class ActNorm(nn.Module):
    """h = scale (x + loc), set by the first training batch so that each channel has mean 0 and standard deviation 1.

    The first batch counts over all processes. Before it, in eval mode, the map is the identity.

    Args:
        num_features: channels C.
        logdet: `forward` also returns the log-determinant of the map, once per sample.
        affine: must be true; it is there because the reference's signature has it.
        allow_reverse_init: an inverse pass may be the first to see data.

    Attributes:
        loc, scale: parameters ``[1, C, 1, 1]``.
        initialized: uint8, 1 once data have been seen.
    """

    initialized: Tensor

    def __init__(
        self, num_features: int, logdet: bool = False, affine: bool = True, allow_reverse_init: bool = False
    ) -> None:
        super().__init__()
        if not affine:
            raise UserError("ActNorm without its affine map does nothing; affine must be true")
        self.logdet = logdet
        self.allow_reverse_init = allow_reverse_init
        self.loc = nn.Parameter(torch.zeros(1, num_features, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, num_features, 1, 1))
        # A buffer, so that a checkpoint remembers it: loaded weights are not set from data once more.
        self.register_buffer("initialized", torch.zeros((), dtype=torch.uint8))
        # Reading the buffer waits for the device. Once it was seen to be 1, it is not read again.
        self._seen_initialized = False
        self.register_load_state_dict_post_hook(_read_again)

    def forward(
        self, x: Float[Tensor, "b c *hw"], reverse: bool = False
    ) -> Float[Tensor, "b c *hw"] | tuple[Float[Tensor, "b c *hw"], Float[Tensor, " b"]]:
        """The map, or with ``reverse`` its inverse, of ``[B, C, H, W]`` or ``[B, C]``.

        Returns:
            The result, shaped as ``x``; with ``logdet``, and not in reverse, also H W sum(log |scale|) as ``[B]``.
        """
        if reverse:
            return self.reverse(x)
        self._initialise(x)
        h = (self.scale * (_lifted(x) + self.loc)).reshape(x.shape)
        if not self.logdet:
            return h
        positions = x[0, 0].numel()
        return h, (positions * self.scale.abs().log().sum()).expand(x.shape[0])

    def reverse(self, h: Float[Tensor, "b c *hw"]) -> Float[Tensor, "b c *hw"]:
        """x = h / scale - loc.

        Raises:
            RuntimeError: in train mode before initialisation, unless ``allow_reverse_init``.
        """
        if self.training and not self.allow_reverse_init and not self._is_initialised():
            raise RuntimeError("an ActNorm that has seen no data has no inverse yet; see allow_reverse_init")
        self._initialise(h)
        return (_lifted(h) / self.scale - self.loc).reshape(h.shape)

    def _is_initialised(self) -> bool:
        if not self._seen_initialized:
            self._seen_initialized = bool(self.initialized)
        return self._seen_initialized

    @torch.no_grad()
    def _initialise(self, x: Float[Tensor, "b c *hw"]) -> None:
        if not self.training or self._is_initialised():
            return
        # Once, so precisely where the device can: the sum of a divided batch then rounds to that of a whole one.
        wide = torch.float32 if x.device.type == "mps" else torch.float64
        mean, variance, count = global_moments(_lifted(x).to(wide), (0, 2, 3))
        # The unbiased deviation of one value is 0 / 0, and the scale would stay nan for good.
        if count < 2:
            raise UserError("ActNorm cannot start from one value per channel; its first batch must be larger")
        self.loc.copy_(-mean.reshape_as(self.loc))
        std = (variance * (count / (count - 1))).sqrt()
        self.scale.copy_(1 / (std.reshape_as(self.scale) + 1e-6))
        self.initialized.fill_(1)


def _lifted(x: Float[Tensor, "b c *hw"]) -> Float[Tensor, "b c h w"]:
    return x[:, :, None, None] if x.ndim == 2 else x


def _read_again(module: nn.Module, _incompatible_keys: Any) -> None:
    assert isinstance(module, ActNorm)
    module._seen_initialized = False
