"""Recipes in files: of this version, and of those before it."""

from __future__ import annotations

from pathlib import Path

from repae.config import UserError, check, read_yaml
from repae.recipes.recipe import Recipe
from repae.runtime.migration import current_recipe


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file; one that holds no valid recipe is refused by file and field."""
    return check(Recipe, current_recipe(read_yaml(path)), str(path))


def check_run(folder: Path) -> None:
    """Refuses a folder that no training or import has made."""
    if not (folder / "recipe.yaml").is_file():
        raise UserError(
            f"{folder} is no run: it has no recipe.yaml; give the folder that `repae train` named; "
            "a file of weights is imported first: `repae import FILE --out FOLDER`"
        )
