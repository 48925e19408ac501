"""REPA-E: a VAE and a SiT diffusion transformer trained together through representation alignment (arXiv 2504.10483).

Public names: `recipe`, `train`, `load`, `evaluate` and `compare`, and the importable parts `repae.flow`, `repae.models`
and `repae.losses`. Everything else is private. All of them load on first use, so that `import repae` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repae import flow as flow
    from repae import losses as losses
    from repae import models as models
    from repae.commands.compare import compare_runs as compare
    from repae.commands.evaluate import evaluate_run as evaluate
    from repae.commands.train import train as train
    from repae.recipes.catalogue import recipe as recipe
    from repae.runs.open import load as load

__version__ = "0.2.0"
__all__ = ["__version__", "compare", "evaluate", "flow", "load", "losses", "models", "recipe", "train"]

_ROOMS = ("flow", "losses", "models")
_FUNCTIONS = {
    "compare": ("repae.commands.compare", "compare_runs"),
    "evaluate": ("repae.commands.evaluate", "evaluate_run"),
    "load": ("repae.runs.open", "load"),
    "recipe": ("repae.recipes.catalogue", "recipe"),
    "train": ("repae.commands.train", "train"),
}


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"repae.{name}")
    if name in _FUNCTIONS:
        module, function = _FUNCTIONS[name]
        return getattr(importlib.import_module(module), function)
    raise AttributeError(f"module 'repae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
