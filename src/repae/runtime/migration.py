"""What version 0.1 wrote, read as if this version had written it. Nothing else in the package knows the old names.

Version 0.1 had one backbone and called it by its name: a recipe's field was ``sit``, without a kind, and the names of
a denoiser's weights began with ``sit.``. Whoever opens a saved recipe, a checkpoint or a folder of samples passes what
it read through here. Files of tensors stay as they are: a checkpoint's ``state.json`` says which tensor is which.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RENAMED = {"sit": "backbone"}
"""Fields of a recipe, by their names of version 0.1."""

_SCHEMA = 1
"""Of the checkpoints of version 0.1."""

_DENOISERS = ("denoiser", "ema_denoiser")


def current_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's plain data with the present names; the order of its fields is kept."""
    if "backbone" in recipe:
        return dict(recipe)
    return {RENAMED.get(name, name): _backbone(value) if name == "sit" else value for name, value in recipe.items()}


def current_checkpoint(state: Mapping[str, Any], schema: int) -> dict[str, Any]:
    """What the ``state.json`` of a checkpoint holds, as the present ``schema`` has it.

    Version 0.1's optimisers and averages need nothing: moments go by position, and parameters kept their order.
    """
    if state["schema"] != _SCHEMA:
        return dict(state)
    meta, parts = dict(state["meta"]), dict(state["parts"])
    if "recipe" in meta:
        meta["recipe"] = current_recipe(meta["recipe"])
    for name in _DENOISERS:
        if name in parts:
            parts[name] = _renamed_keys(parts[name])
    return {**state, "schema": schema, "meta": meta, "parts": parts}


def current_identity(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder of samples says of what made them."""
    network = identity.get("network", {})
    guidance = identity.get("guidance", {})
    weak = {"weak": current_recipe(guidance["weak"])} if "weak" in guidance else {}
    return {**identity, "network": current_recipe(network), "guidance": {**guidance, **weak}}


def _backbone(sit: Any) -> Any:
    return {"kind": "sit", **sit} if isinstance(sit, Mapping) else sit


def _renamed_keys(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A denoiser's state, or the state of an average of one, which holds that as its ``module``."""
    if "module" in tree:
        return {**tree, "module": _renamed_keys(tree["module"])}
    return {f"backbone.{key[4:]}" if key.startswith("sit.") else key: value for key, value in tree.items()}
