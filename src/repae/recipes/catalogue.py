"""Recipes by name or by file."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from repae.config import UserError, suggest
from repae.recipes.autoencoders import autoencoders
from repae.recipes.digits import digits
from repae.recipes.guide import check_mode, losses_from, warnings
from repae.recipes.modern import modern
from repae.recipes.options import read_options
from repae.recipes.published import published
from repae.recipes.recipe import Recipe

log = logging.getLogger("repae")


@cache
def catalogue() -> dict[str, Recipe]:
    """Every named recipe, the small ones first."""
    recipes = [*digits(), *autoencoders(), *published(), *modern()]
    named = {recipe.name: recipe for recipe in recipes}
    assert len(named) == len(recipes), "two recipes share a name"
    return named


def find(name: str) -> Recipe:
    """The recipe called ``name``, or in the YAML file of that path, or of the run in that folder.

    Raises:
        UserError: no such recipe or file (with a suggestion), or a file that holds no valid recipe.
    """
    named = catalogue()
    if name in named:
        return named[name]
    path = Path(name)
    if path.is_dir() and (path / "recipe.yaml").is_file():
        return Recipe.from_yaml(path / "recipe.yaml")
    if path.is_file() or path.suffix in (".yaml", ".yml"):
        return Recipe.from_yaml(path)
    hint = suggest(name, named)
    raise UserError(
        f"no recipe {name!r}{hint or ';'} `repae recipes` lists the names; a file is given by its path, "
        "such as runs/NAME/recipe.yaml"
    )


def compose(name: str, options: Mapping[str, str | None], losses: str | None = None) -> Recipe:
    """A recipe as the command line asks for it: by name or file, then the guide's loss file, then single fields.

    Warns of values that leave the guide's tuning ranges.

    Args:
        name: as for `find`.
        options: dotted field names and their texts; see `read_options`.
        losses: path of a loss file in the guide's form.

    Raises:
        UserError: for anything unknown or not allowed.
    """
    named = find(name)
    changes = (losses_from(losses) if losses else {}) | read_options(Recipe, options)
    recipe = named.replace(**changes) if changes else named
    if losses:
        check_mode(losses, recipe)
    for line in warnings(recipe, named):
        log.warning(line)
    return recipe


def listing() -> str:
    """Names and purposes of all recipes, for people."""
    named = catalogue()
    width = max(map(len, named)) + 2
    return "\n".join(
        textwrap.fill(recipe.about, 120, initial_indent=name.ljust(width), subsequent_indent=" " * width)
        for name, recipe in named.items()
    )
