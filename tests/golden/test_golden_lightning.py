"""LightningDiT against the original's forward pass, recorded by make_lightning_vectors.py with its origin."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from repae.export.lightning import denoiser_from_lightning, lightning_sizes
from repae.models import Denoiser, LightningDiT

VECTORS = Path(__file__).parent / "vectors" / "lightning_dit.safetensors"

with safe_open(VECTORS, "pt") as opened:
    METADATA: dict[str, str] = opened.metadata()
    TENSORS: dict[str, Tensor] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
SETTINGS = {"data": {"num_classes": 5}}
CASES: dict[str, dict[str, Any]] = json.loads(METADATA["cases"])


def case(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights under the original's names, and inputs and results."""
    found = {key.removeprefix(f"{name}."): value for key, value in TENSORS.items() if key.startswith(f"{name}.")}
    weights = {key.removeprefix("weights."): value for key, value in found.items() if key.startswith("weights.")}
    return weights, {key: value for key, value in found.items() if not key.startswith("weights.")}


def close(found: Tensor, expected: Tensor) -> None:
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@torch.no_grad()
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_every_block_is_the_originals(name: str, fused: bool) -> None:
    """Tokens after each block and the output, to 1e-5 of the largest, on the original's own time."""
    weights, data = case(name)
    model = LightningDiT(lightning_sizes(weights, SETTINGS).replace(fused_attn=fused)).eval()
    assert (model.config.null_label is None) == (name == "unconditional") and model.config.num_classes == 5
    model.load_state_dict({key: value for key, value in weights.items() if not key.startswith("feat_rope.")})
    for number in range(1, model.config.depth + 1):
        close(model.features(data["x"], data["t"], data["y"], number), data[f"tokens.{number}"])
    close(model(data["x"], data["t"], data["y"]), data["output"])


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
def test_an_import_is_the_same_field_with_time_turned(name: str) -> None:
    """v(x, t) = -v'(x, 1 - t): the original's time runs from noise to data."""
    weights, data = case(name)
    sizes = lightning_sizes(weights, SETTINGS)
    denoiser = Denoiser(sizes.build(), [], 1, 1).eval()
    denoiser.load_state_dict(denoiser_from_lightning(weights, sizes))
    close(denoiser.velocity(data["x"], 1 - data["t"], data["y"]), -data["output"])


def test_the_vectors_name_their_origin() -> None:
    """Repository and commit, without which the numbers prove nothing."""
    assert METADATA["repository"].endswith("hustvl/LightningDiT") and len(METADATA["commit"]) == 40
