"""LightningDiT's own checkpoints (arXiv 2501.01423): ``model``, ``ema``, ``opt`` and ``config``, or ``ema`` alone.

Time runs from noise to data there, as in SiT's, and is turned round (`repae.export.original_sit`). Latents are
normalised by the means and deviations of a file ``latents_stats.pt``, which lies with its authors' latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repae.config import UserError
from repae.export.original_sit import to_our_time
from repae.export.sizes import backbone_fields
from repae.models.backbones.lightning import LightningConfig, LightningDiT
from repae.models.weight_files import check_coverage

State = Mapping[str, Tensor]

_ROTATION = "feat_rope."
_EXPECTED = "the weights of a LightningDiT with SwiGLU, RMSNorm and rotary embeddings, with shifts"


def is_lightning(state: State) -> bool:
    return "blocks.0.mlp.w12.weight" in state and "x_embedder.proj.weight" in state


def lightning_sizes(state: State, config: Mapping[str, Any]) -> LightningConfig:
    """Sizes of a LightningDiT by its weights under its authors' names, and by the ``config`` of its checkpoint if any.

    The share of dropped labels is what its authors trained with.
    """
    if f"{_ROTATION}freqs_cos" not in state:
        raise UserError(f"this file has no rotary embeddings ({_ROTATION}freqs_cos); give {_EXPECTED}")
    fields = backbone_fields(state, config.get("data", {}).get("num_classes"), 0.1)
    width = fields["hidden_size"]
    return LightningConfig(
        num_heads=width // state[f"{_ROTATION}freqs_cos"].shape[-1],
        mlp_ratio=_ratio(width, state["blocks.0.mlp.w3.weight"].shape[1]),
        **fields,
    )


def denoiser_from_lightning(state: State, sizes: LightningConfig) -> dict[str, Tensor]:
    """State dict of a `Denoiser` without projectors: the same velocity field, time and velocity turned round.

    Raises:
        UserError: a weight is missing, unknown or of another shape.
    """
    # The rotation is a function of the sizes, and ours is computed.
    turned = to_our_time({name: value for name, value in state.items() if not name.startswith(_ROTATION)})
    with torch.device("meta"):
        own = LightningDiT(sizes).state_dict()
    check_coverage(own, turned, f"these are not {_EXPECTED}", "other variants are not known here")
    return {f"backbone.{name}": value for name, value in turned.items()}


def _ratio(width: int, hidden: int) -> float:
    """A ratio of which SwiGLU's hidden layer has this width: 2/3 of it, rounded down twice."""
    for candidate in (4.0, 1.5 * hidden / width, (1.5 * hidden + 1) / width, (1.5 * hidden + 2) / width):
        if int(2 / 3 * int(width * candidate)) == hidden:
            return candidate
    raise UserError(f"an MLP of {hidden} hidden units in a LightningDiT of width {width} follows from no ratio")
