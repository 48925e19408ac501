"""The small network between the denoiser's tokens and a teacher's (REPA, arXiv 2410.06940, Sec. 3.2)."""

from __future__ import annotations

from torch import nn

from repae.models.layers import linear


class Projector(nn.Sequential):
    """Tokens ``[..., hidden]`` to a teacher's width: ``[..., out]``, through two hidden layers with SiLU."""

    def __init__(self, hidden: int, projector_dim: int, out: int) -> None:
        super().__init__(
            linear(hidden, projector_dim),
            nn.SiLU(),
            linear(projector_dim, projector_dim),
            nn.SiLU(),
            linear(projector_dim, out),
        )
