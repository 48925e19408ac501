"""Teachers by name, and the tokens that they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from repae.models.teachers.base import Teacher
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig


def load_teachers(
    names: str | Sequence[str],
    *,
    weights: Mapping[str, str] | None = None,
    device: str | torch.device = "cpu",
) -> list[Teacher]:
    """Pretrained teachers by name, in the order given.

    Args:
        names: of the catalogue (``dinov2-b``), of the reference (``dinov2-vit-b``) or of timm; several in one text have
            commas between them.
        weights: local files by name as given; what has none comes from the hub or its cache.
        device: where to.

    Raises:
        UserError: no such teacher, or weights that cannot be had or do not fit.
    """
    wanted = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    files = weights or {}
    return [TimmTeacher(TimmTeacherConfig(name=name, weights=files.get(name))).to(device) for name in wanted]


def extract_visual_features(
    teachers: Sequence[Teacher], images: UInt8[Tensor, "b c h w"]
) -> list[Float[Tensor, "b _ _"]]:
    """For each teacher its patch tokens ``[B, N, D]`` of images 0..255: float32, without class token, registers, graph.

    Every teacher does its own preprocessing, so the images are given as they are. They must be on the teachers' device.
    """
    return [teacher(images) for teacher in teachers]
