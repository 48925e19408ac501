"""Sizes of networks, read off their weights under the reference's names, and off the settings saved beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from repae.config import UserError
from repae.models.backbones import BackboneConfig, SiTConfig
from repae.models.discriminator import PatchGANConfig
from repae.models.reference_keys import count_numbered

State = Mapping[str, Tensor]

_PUBLISHED = ("SiT-XL/2", "SiT-L/2", "SiT-B/2", "SiT-S/2")


@dataclass(frozen=True)
class GeneratorSizes:
    """A denoiser's sizes; ``out_channels`` is twice ``backbone.in_channels`` where a variance is predicted as well."""

    backbone: BackboneConfig
    z_dims: tuple[int, ...]
    encoder_depth: int
    projector_dim: int
    out_channels: int


def generator_sizes(state: State, settings: Mapping[str, Any], num_heads: int | None = None) -> GeneratorSizes:
    """Sizes of a SiT by its weights; what these do not show comes from ``settings``, or is a published size's.

    Args:
        state: a SiT under the reference's names.
        settings: the ``args`` of the checkpoint, empty where there are none.
        num_heads: number of attention heads, which no weight shows; None asks settings and published sizes.

    Raises:
        UserError: a weight is missing, sizes contradict each other, or the number of heads is not known.
    """
    projectors = [
        _need(state, f"projectors.{k}.4.weight").shape[0] for k in range(count_numbered(state, r"projectors\.(\d+)\."))
    ]
    hidden = _need(state, "projectors.0.0.weight").shape[0] if projectors else 2048
    fields = backbone_fields(state, settings.get("num_classes"), float(settings.get("cfg_prob") or 0.1))
    sit = SiTConfig(
        num_heads=num_heads or _heads(state, settings, fields["depth"], fields["hidden_size"]),
        mlp_ratio=_need(state, "blocks.0.mlp.fc1.weight").shape[0] / fields["hidden_size"],
        **fields,
    )
    return GeneratorSizes(
        backbone=sit,
        z_dims=tuple(projectors),
        encoder_depth=min(int(settings.get("encoder_depth") or 8), sit.depth),
        projector_dim=hidden,
        out_channels=_need(state, "final_layer.linear.bias").shape[0] // sit.patch_size**2,
    )


def backbone_fields(state: State, classes: int | None, dropout: float) -> dict[str, Any]:
    """The sizes that a SiT and a LightningDiT show alike; ``classes`` and ``dropout`` are what the settings say.

    Raises:
        UserError: a weight is missing, or the label table does not fit the number of classes.
    """
    first, table, positions = (
        _need(state, name) for name in ("x_embedder.proj.weight", "y_embedder.embedding_table.weight", "pos_embed")
    )
    width, channels, patch = first.shape[:3]
    # Rows and not classes: there is one more where labels were dropped in training.
    rows = table.shape[0]
    classes = int(classes or rows - 1)
    if rows - classes not in (0, 1):
        raise UserError(
            f"the label table has {rows} rows and the checkpoint names {classes} classes; "
            f"allowed: {rows}, or {rows - 1} and the null class; correct num_classes in the checkpoint"
        )
    return {
        "input_size": math.isqrt(positions.shape[1]) * patch,
        "patch_size": patch,
        "in_channels": channels,
        "hidden_size": width,
        "depth": count_numbered(state, r"blocks\.(\d+)\."),
        "num_classes": classes,
        "class_dropout_prob": dropout if rows > classes else 0.0,
        "qk_norm": "blocks.0.attn.q_norm.weight" in state,
    }


def discriminator_sizes(state: State) -> PatchGANConfig:
    first = _need(state, "main.0.weight")
    convolutions = [name for name, value in state.items() if name.endswith(".weight") and value.ndim == 4]
    return PatchGANConfig(
        in_channels=first.shape[1],
        ndf=first.shape[0],
        n_layers=max(len(convolutions) - 2, 1),
        norm="act" if any(name.endswith(".loc") for name in state) else "batch",
    )


def published_name(sit: SiTConfig) -> str | None:
    """The published name of these sizes, such as ``SiT-XL/2``, or None."""
    for name in _PUBLISHED:
        published = SiTConfig.preset(name)
        if (sit.depth, sit.hidden_size, sit.num_heads) == (published.depth, published.hidden_size, published.num_heads):
            return f"{name.partition('/')[0]}/{sit.patch_size}"
    return None


def _heads(state: State, settings: Mapping[str, Any], depth: int, width: int) -> int:
    if (norm := state.get("blocks.0.attn.q_norm.weight")) is not None:
        return width // norm.shape[0]
    if settings.get("num_heads"):
        return int(settings["num_heads"])
    for name in _PUBLISHED:
        published = SiTConfig.preset(name)
        if (published.depth, published.hidden_size) == (depth, width):
            return published.num_heads
    raise UserError(
        f"a SiT of depth {depth} and width {width} is no published size, and weights do not show the number of "
        "attention heads; say it with --num-heads N"
    )


def _need(state: State, name: str) -> Tensor:
    if name not in state:
        raise UserError(f"these are no weights that can be imported: {name!r} is missing; give the whole file")
    return state[name]
