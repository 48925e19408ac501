"""Nested state as plain data: tensors to one side, everything else to JSON, and back exactly as it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flatten(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split dicts, lists and tuples of tensors and scalars into what JSON can hold and named tensors on the CPU.

    A tensor's name is its path, joined by dots, so that the state of a module keeps its own names. Tensors that share
    memory are separated. Keys of dicts may be text or whole numbers; numbers may be infinite or NaN.
    """
    tensors: dict[str, Tensor] = {}
    return _split(tree, (), tensors, set()), tensors


def restore(skeleton: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `flatten` was given: same structure, types of keys, dtypes and values. Mappings come back as dicts."""
    if isinstance(skeleton, list):
        return [restore(item, tensors) for item in skeleton]
    if not isinstance(skeleton, dict):
        return skeleton
    if "$tensor" in skeleton:
        return tensors[skeleton["$tensor"]]
    if "$tuple" in skeleton:
        return tuple(restore(item, tensors) for item in skeleton["$tuple"])
    if "$float" in skeleton:
        return float(skeleton["$float"])
    if "$dict" in skeleton:
        return {key: restore(item, tensors) for key, item in skeleton["$dict"]}
    return {key: restore(item, tensors) for key, item in skeleton.items()}


def _split(tree: Any, path: tuple[str, ...], tensors: dict[str, Tensor], storages: set[int]) -> Any:
    if isinstance(tree, Tensor):
        return {"$tensor": _put(tree, path, tensors, storages)}
    if isinstance(tree, Mapping):
        items = [(key, _split(item, (*path, str(key)), tensors, storages)) for key, item in tree.items()]
        assert all(type(key) in (str, int) for key, _ in items), f"keys are words or numbers: {list(tree)}"
        if all(isinstance(key, str) and not key.startswith("$") for key, _ in items):
            return dict(items)
        return {"$dict": [list(item) for item in items]}
    if isinstance(tree, (list, tuple)):
        items = [_split(item, (*path, str(place)), tensors, storages) for place, item in enumerate(tree)]
        return {"$tuple": items} if isinstance(tree, tuple) else items
    # JSON has no infinity and no nan.
    if type(tree) is float and not math.isfinite(tree):
        return {"$float": str(tree)}
    assert tree is None or type(tree) in (bool, int, float, str), (
        f"{'.'.join(path)}: a state holds tensors and plain values, not {type(tree).__name__}"
    )
    return tree


def _put(tensor: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor], storages: set[int]) -> str:
    plain = tensor.detach().cpu().contiguous()
    storage = plain.untyped_storage().data_ptr()
    # safetensors refuses tensors that share memory.
    if storage in storages:
        plain = plain.clone(memory_format=torch.contiguous_format)
        storage = plain.untyped_storage().data_ptr()
    storages.add(storage)
    name = ".".join(path) or "value"
    # {"a.b": x} and {"a": {"b": x}} have one path.
    while name in tensors:
        name += "~"
    tensors[name] = plain
    return name
