"""Weights of networks from files, whole or not at all."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from repae.config import UserError

_WRAPPINGS = ("state_dict", "model")
_SHOWN_KEYS = 4


def read_weights(path: Path, what: str) -> dict[str, Tensor]:
    """The named tensors in a safetensors file, or in a ``.pt`` or ``.pth`` that holds nothing but tensors.

    Raises:
        UserError: no such file, or none of that kind; ``what`` says whose weights they should have been.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{what}: there is no file {path}; put it there or say where it is") from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{what}: {path} holds more than tensors, or is no weights file; if you trust it, convert it to safetensors"
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise UserError(f"{what}: {path} cannot be read: {str(error).splitlines()[0]}") from None
    for wrapping in _WRAPPINGS:
        if isinstance(state, dict) and isinstance(state.get(wrapping), dict):
            state = state[wrapping]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{what}: {path} does not hold the named tensors of a network; give its weights file")
    return state


def check_coverage(own: Mapping[str, Tensor], given: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Refuses weights that lack a key, have one too many, or another shape.

    Raises:
        UserError: naming some of each.
    """
    wrong = [f"missing {name}" for name in own.keys() - given.keys()]
    wrong += [f"unexpected {name}" for name in given.keys() - own.keys()]
    wrong += [
        f"{name} has shape {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own.keys() & given.keys()
        if own[name].shape != given[name].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN_KEYS} more" if len(wrong) > _SHOWN_KEYS else ""
        raise UserError(
            f"{what}: {path} does not hold them: {'; '.join(sorted(wrong)[:_SHOWN_KEYS])}{more}; give the right file"
        )
