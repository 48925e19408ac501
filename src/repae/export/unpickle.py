"""Files of weights, read without running anybody's code."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from repae.config import UserError

_FOREIGN = re.compile(r"GLOBAL (\S+)")
"""How torch's restricted unpickler names what it refuses to look up."""


def read_weights(file: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file or a file of ``torch.save`` holds, zip and legacy format alike, on the CPU.

    A pickle can name any function of any package and call it. Here nothing but tensors, containers, plain values and an
    ``argparse.Namespace`` is ever built: torch's own restricted unpickler refuses all other names before it looks them
    up, and so before anything runs.

    Raises:
        UserError: no such file, damaged, refused, or not a mapping.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file; give a .safetensors or a .pt file")
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        with torch.serialization.safe_globals([argparse.Namespace]):
            held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(file, str(error))) from None
    except (
        SafetensorError,
        OSError,
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
    ) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{file} cannot be read as weights: {words[:200]}; is it complete?") from None
    if not isinstance(held, Mapping):
        raise UserError(f"{file} holds a {type(held).__name__}, not weights by name")
    return dict(held)


def is_state(value: object) -> bool:
    """Whether this is a state dict: tensors by name, at least one, and nothing else."""
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(item, Tensor) for item in value.values())


def _refusal(file: Path, words: str) -> str:
    foreign = _FOREIGN.search(words)
    asked = f"it asks for {foreign[1]!r}" if foreign else "it holds more than tensors, containers and a Namespace"
    return (
        f"{file} is refused, and nothing of it was run: {asked}, which could run anything. If you trust whoever made "
        "it, let them save the state dicts alone, as .safetensors"
    )
