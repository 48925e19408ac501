"""Checkpoints of the reference, made of the numbers that it left in tests/golden, in its own keys and file layout."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden" / "vectors"
CASE = "train_linear"
STEPS = 3


def weights(player: str, when: str = "after") -> dict[str, Tensor]:
    """One player of the recorded training: ``sit``, ``ema``, ``vae`` or ``discriminator``."""
    prefix = f"{when}.{player}."
    held = load_file(GOLDEN / f"{CASE}.safetensors")
    found = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    assert found, prefix
    return found


def args(**changes: Any) -> argparse.Namespace:
    """The command line of that training, with the options that the reference's own Namespace has."""
    sizes = json.loads((GOLDEN / "manifest.json").read_text())[CASE]["sit"]
    fields = {
        "exp_name": "golden",
        "model": None,
        "num_heads": sizes["num_heads"],
        "num_classes": sizes["num_classes"],
        "cfg_prob": sizes["class_dropout_prob"],
        "encoder_depth": sizes["encoder_depth"],
        "enc_type": "dinov2-vit-b,dinov1-vit-b",
        "path_type": "linear",
        "prediction": "v",
        "weighting": "uniform",
        "bn_momentum": 0.1,
        "proj_coeff": 0.5,
        "vae_align_proj_coeff": 1.5,
        "qk_norm": False,
        "fused_attn": True,
        "resolution": 32,
        "seed": 0,
        "report_to": None,
    }
    return argparse.Namespace(**{**fields, **changes})


def moments(state: dict[str, Tensor]) -> dict[str, Any]:
    """State of an AdamW after one step on parameters of these shapes."""
    parameters = [nn.Parameter(value.clone()) for value in state.values() if value.is_floating_point()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.0)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(parameters)))
    optimiser.step()
    return optimiser.state_dict()


def joint() -> dict[str, Any]:
    """``0000003.pt`` of the reference's joint training."""
    players = {
        "model": weights("sit"),
        "ema": weights("ema"),
        "vae": weights("vae"),
        "discriminator": weights("discriminator"),
    }
    optimisers = {
        "opt": moments(players["model"]),
        "opt_vae": moments(players["vae"]),
        "opt_disc": moments(players["discriminator"]),
    }
    return {**players, **optimisers, "args": args(), "steps": STEPS}


def write_joint(folder: Path) -> Path:
    """The joint checkpoint as a file, under the reference's own name."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{STEPS:07d}.pt"
    torch.save(joint(), path)
    return path


def write_autoencoder(folder: Path) -> Path:
    """``vae.pt`` with its statistics and its discriminator beside it, as the reference's tool writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    ema = weights("ema")
    statistics = {
        "latents_scale": ema["bn.running_var"].rsqrt().view(1, -1, 1, 1),
        "latents_bias": ema["bn.running_mean"].view(1, -1, 1, 1),
    }
    torch.save(weights("vae"), folder / "vae.pt")
    torch.save(statistics, folder / "vae-latents-stats.pt")
    torch.save(weights("discriminator"), folder / "vae-discriminator-ckpt.pt")
    return folder / "vae.pt"


def without_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A SiT as REPA keeps it: no normaliser inside."""
    return {name: value for name, value in state.items() if not name.startswith("bn.")}


def without_projectors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A SiT as SiT's own code keeps it: no normaliser and no projectors."""
    return {name: value for name, value in without_norm(state).items() if not name.startswith("projectors.")}


def equal(one: Any, other: Any, where: str = "") -> None:
    """Same structure, types and bits."""
    if isinstance(one, argparse.Namespace):
        assert isinstance(other, argparse.Namespace), where
        one, other = vars(one), vars(other)
    if isinstance(one, Tensor):
        assert isinstance(other, Tensor) and one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert list(one) == list(other) or set(one) == set(other), where
        for name in one:
            equal(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, (list, tuple)):
        assert type(one) is type(other) and len(one) == len(other), where
        for place, pair in enumerate(zip(one, other)):
            equal(*pair, f"{where}[{place}]")
    else:
        assert type(one) is type(other) and one == other, f"{where}: {one!r} and {other!r}"
