"""Recipes in files: of this version, and of those before it."""

from __future__ import annotations

from pathlib import Path

from repae.config import check, read_yaml
from repae.recipes.recipe import Recipe
from repae.runtime.migration import current_recipe


def read_recipe(path: str | Path) -> Recipe:
    """The recipe in a YAML file.

    Raises:
        UserError: naming the file and the field, where it holds no valid recipe.
    """
    return check(Recipe, current_recipe(read_yaml(path)), str(path))
