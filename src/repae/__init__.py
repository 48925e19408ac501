"""REPA-E: a VAE and a SiT diffusion transformer trained together through representation alignment (arXiv 2504.10483).

Public names: `train(recipe)` and `load(run_or_export)`, and the importable parts `repae.flow`, `repae.models` and
`repae.losses`. Everything else is private. All of them load on first use, so that `import repae` is instant.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repae import flow as flow
    from repae import losses as losses
    from repae import models as models
    from repae.recipes.load import load as load
    from repae.recipes.run import train as train

__version__ = "0.1.0"
__all__ = ["__version__", "flow", "load", "losses", "models", "train"]

_ROOMS = ("flow", "losses", "models", "train")


class _TrainRoom(ModuleType):
    """`repae.train` is a room of the package and, for its users, the function that trains: the module is callable."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`repae.recipes.run.train` with the same arguments."""
        return importlib.import_module("repae.recipes.run").train(*args, **kwargs)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # The import system binds a submodule to its parent here, whoever imports it first.
        if name == "train" and isinstance(value, ModuleType):
            value.__class__ = _TrainRoom
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"repae.{name}")
    if name == "load":
        return importlib.import_module("repae.recipes.load").load
    raise AttributeError(f"module 'repae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
