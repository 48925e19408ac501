"""Files of weights, read without running anybody's code, and given to networks whole or not at all."""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from repae.config import UserError, one_line

_FOREIGN = re.compile(r"GLOBAL (\S+)")
"""How torch's restricted unpickler names what it refuses to look up."""

_UNREADABLE = (SafetensorError, OSError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError)
"""What torch and safetensors raise on damaged files."""

_WRAPPINGS = ("state_dict", "model")
_SHOWN_KEYS = 4


def read_file(file: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file or a file of ``torch.save`` holds, zip and legacy format alike, on the CPU.

    A pickle can name any function of any package and call it. Here nothing but tensors, containers, plain values and an
    ``argparse.Namespace`` is ever built: torch's own restricted unpickler refuses all other names before it looks them
    up, and so before anything runs.

    Raises:
        UserError: no such file, damaged, refused, or not a mapping.
    """
    check_there(file)
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        # The reference pickles its command line beside its weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal(file, str(error))) from None
    except _UNREADABLE as error:
        raise UserError(f"{file} cannot be read as weights: {one_line(error)}; fetch a complete copy") from None
    if not isinstance(held, Mapping):
        raise UserError(f"{file} holds a {type(held).__name__}, not weights by name; give a state dict")
    return dict(held)


def read_weights(file: Path, what: str, wrappings: Sequence[str] = _WRAPPINGS) -> dict[str, Tensor]:
    """The state dict of one network in a file, out of the ``wrappings`` that training scripts put around it.

    Raises:
        UserError: as `read_file`, or no state dict; ``what`` says whose weights they should have been.
    """
    try:
        state = read_file(file)
    except UserError as error:
        raise UserError(f"{what}: {error}") from None
    for wrapping in wrappings:
        if isinstance(state.get(wrapping), Mapping):
            state = dict(state[wrapping])
    if not is_state(state):
        raise UserError(f"{what}: {file} does not hold the named tensors of one network; give its weights file")
    return state


def check_there(file: Path) -> None:
    """Refuses a file that is not there, before a second goes into the network that it is for."""
    if not file.is_file():
        raise UserError(f"there is no weights file {file}; put it there, or say where it is")


def is_state(value: object) -> bool:
    """Whether this is a state dict: tensors by name, at least one, and nothing else."""
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(item, Tensor) for item in value.values())


def check_coverage(own: Mapping[str, Tensor], given: Mapping[str, Tensor], complaint: str, remedy: str) -> None:
    """Refuses weights that lack a key, have one too many, or another shape.

    Raises:
        UserError: ``complaint``, some of what differs, ``remedy``.
    """
    wrong = [f"missing {name}" for name in sorted(own.keys() - given.keys())]
    wrong += [f"unexpected {name}" for name in sorted(given.keys() - own.keys())]
    wrong += [
        f"{name} has shape {tuple(given[name].shape)} instead of {tuple(own[name].shape)}"
        for name in sorted(own.keys() & given.keys())
        if own[name].shape != given[name].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN_KEYS} more" if len(wrong) > _SHOWN_KEYS else ""
        raise UserError(f"{complaint}: {'; '.join(wrong[:_SHOWN_KEYS])}{more}; {remedy}")


def fit(module: nn.Module, state: Mapping[str, Tensor], complaint: str, remedy: str) -> None:
    """Loads ``state`` where every name and shape fits; raises as `check_coverage` where not."""
    own = module.state_dict()
    check_coverage(own, state, complaint, remedy)
    # A module on the meta device has no memory to copy into: it takes the tensors themselves.
    module.load_state_dict(dict(state), assign=any(tensor.is_meta for tensor in own.values()))


def _refusal(file: Path, words: str) -> str:
    foreign = _FOREIGN.search(words)
    asked = f"it asks for {foreign[1]!r}" if foreign else "it holds more than tensors, containers and a Namespace"
    return (
        f"{file} is refused, and nothing of it was run: {asked}, which could run anything. If you trust whoever made "
        "it, let them save the state dicts alone, as .safetensors"
    )
