"""Which weights these are, whatever file they lie in, and which file, in one number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

WRAPPER = "model."
"""What a name begins with where a network of another library stands behind an interface of ours; it does not count."""

_READ_BYTES = 2**20


def weights_digest(module: nn.Module) -> str:
    return state_digest(module.state_dict())


def state_digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, type, shape and bytes of every tensor, in ascending order of names.

    The same on every machine and device, and however the weights were stored in between: an autoencoder of a run, of
    an exported folder and of a converted file of the reference have one digest if their weights are the same.
    """
    digest = hashlib.sha256()
    named = [(name.removeprefix(WRAPPER), tensor) for name, tensor in state.items()]
    for name, tensor in sorted(named, key=lambda item: item[0]):
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def short_digest(state: Mapping[str, Tensor]) -> str:
    """The first 12 digits of `state_digest`, as people compare them."""
    return state_digest(state)[:12]


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while data := stream.read(_READ_BYTES):
            digest.update(data)
    return digest.hexdigest()
