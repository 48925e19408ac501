"""Representation alignment: the loss that may train both the denoiser and the autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from repae.config import UserError


def alignment_loss(projected: Sequence[Tensor], targets: Sequence[Tensor]) -> Float[Tensor, ""]:
    """Negative cosine similarity of projected tokens and teacher tokens (REPA, arXiv 2410.06940, Eq. 8).

    Args:
        projected: for each teacher, the projected tokens of the denoiser, ``[B, T, D_k]``.
        targets: for each teacher, its patch tokens, ``[B, T, D_k]``; they receive no gradient.

    Returns:
        The mean over tokens, samples and teachers, float32, in [-1, 1]; it does not grow with any of the three.

    Raises:
        UserError: the numbers of teachers, of tokens, the widths or the batches differ.
    """
    if len(projected) != len(targets) or not targets:
        raise UserError(
            f"{len(projected)} projections meet {len(targets)} sets of teacher tokens; "
            "alignment needs one projector for each teacher and at least one teacher"
        )
    # In half precision a cosine near 1 moves in steps of 5e-4 or more, and squared norms can overflow.
    with torch.autocast(targets[0].device.type, enabled=False):
        # strict, for a zip that stops early would leave a teacher out in silence.
        losses = [_negative_cosine(p, z.detach(), k) for k, (p, z) in enumerate(zip(projected, targets, strict=True))]
        return torch.stack(losses).mean()


def _negative_cosine(projected: Tensor, target: Tensor, teacher: int) -> Tensor:
    # Equal, not merely broadcastable: one pooled vector would pull every token towards it, without an error.
    if projected.shape != target.shape or projected.ndim != 3:
        raise UserError(
            f"teacher {teacher} gives tokens of shape {tuple(target.shape)}, the denoiser's projection has "
            f"{tuple(projected.shape)}; both must be [batch, tokens, width] and equal. Choose the teacher's input size "
            "or the denoiser's patch size so that the token grids agree"
        )
    p = F.normalize(projected.float(), dim=-1)
    z = F.normalize(target.float(), dim=-1)
    return -(p * z).sum(-1).mean()
