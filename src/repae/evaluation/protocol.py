"""Which figures may stand side by side: the protocol that made them, and where two protocols differ."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from typing import Any

PACKAGES = ("repae", "torch", "torchvision", "timm", "numpy", "scikit-learn", "scikit-image", "torch-fidelity", "lpips")

SUBJECT = ("recipe", "step", "name", "images_from", "data.name")
"""Fields that say what was measured, not how: they differ between any two runs."""

REMARKS = ("versions", "device", "made.seconds")
"""Fields that should change no figure by more than its last digits: a difference is said and refuses nothing."""

ONLY_GENERATED = ("sampler", "evaluations", "guidance", "guided_images", "path", "seed", "labels", "reference", "made")
"""Fields that a figure of the reconstruction or of the latents does not depend on."""


def versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def flat(protocol: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every leaf by its dotted name; a list is a leaf."""
    found: dict[str, Any] = {}
    for key, value in protocol.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return found


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Fields in which two protocols differ, what was measured apart, with both values; None where one lacks it."""
    left, right = flat(a), flat(b)
    names = sorted({*left, *right})
    return {
        name: (left.get(name), right.get(name))
        for name in names
        if left.get(name) != right.get(name) and not _below(name, SUBJECT)
    }


def refusing(different: Mapping[str, Any], *, generated: bool) -> list[str]:
    """Those of the differing fields that forbid a comparison of figures, of generated images or of the others."""
    free = REMARKS if generated else (*REMARKS, *ONLY_GENERATED)
    return [name for name in different if not _below(name, free)]


def _below(name: str, fields: tuple[str, ...]) -> bool:
    return any(name == field or name.startswith(f"{field}.") for field in fields)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
