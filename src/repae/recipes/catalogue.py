"""Recipes by name or by file."""

from __future__ import annotations

import json
import logging
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from repae.config import Config, UserError, suggest
from repae.config.options import read_options
from repae.data import PixelsConfig
from repae.recipes.autoencoders import autoencoders
from repae.recipes.digits import digits
from repae.recipes.guide import check_mode, losses_from, warnings
from repae.recipes.modern import modern
from repae.recipes.published import published
from repae.recipes.recipe import Recipe
from repae.recipes.saved import read_recipe
from repae.recipes.sources import DATA, data_at

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
        return read_recipe(path / "recipe.yaml")
    if path.is_file():
        return read_recipe(path)
    hint = suggest(name, named)
    raise UserError(
        f"there is no recipe and no file {name!r}{hint or ';'} `repae recipes` lists the names; a file is given by "
        "its path, such as runs/NAME/recipe.yaml"
    )


def recipe(name: str | Path | Recipe, /, **changes: Any) -> Recipe:
    """A recipe, by its name or the path of a file or a run, with some fields changed.

    A field of a part has a dotted name, hence ``recipe("digits", **{"loop.steps": 20}, name="mine")``.

    Args:
        name: as for `find`; or a recipe to change further.
        changes: field names and their values. `data` may be a path or URL, as on the command line.

    Raises:
        UserError: no such recipe, or a field or value that is not allowed; with a suggestion.
    """
    named = name if isinstance(name, Recipe) else find(str(name))
    if isinstance(changes.get("data"), (str, Path)):
        changes = _with_data(str(changes.pop("data")), changes, named.data)
    return named.replace(**changes)


def compose(
    name: str, options: Mapping[str, str | None], losses: str | None = None, init_from: str | None = None
) -> Recipe:
    """A recipe as the command line asks for it: by name or file, then the guide's loss file, then single fields.

    Warns of values that leave the guide's tuning ranges.

    Args:
        name: as for `find`.
        options: dotted field names and their texts; see `read_options`. `data` may also be a path or URL, of which
            `repae.data.sources.detect` finds out what it is.
        losses: path of a loss file in the guide's form.
        init_from: a run, an import or an export whose players the run starts with.

    Raises:
        UserError: for anything unknown or not allowed.
    """
    named = find(name)
    fields, place = dict(options), options.get("data")
    if place is not None and not _is_mapping(place):
        del fields["data"]
    if init_from is not None:
        if any(option.partition(".")[0] == "start" for option in fields):
            raise UserError("--init-from and --start say the same thing twice; give one of them")
        fields["start"] = json.dumps({"kind": "run", "path": init_from})
    changes = (losses_from(losses) if losses else {}) | read_options(Recipe, fields)
    if "data" not in fields and place is not None:
        changes["data"] = place
    composed = recipe(named, **changes)
    if losses:
        check_mode(losses, composed)
    for line in warnings(composed, named):
        log.warning(line)
    return composed


def _is_mapping(text: str) -> bool:
    """Whether a text is a whole part written as YAML, and no path."""
    try:
        return isinstance(yaml.safe_load(text), dict)
    except yaml.YAMLError:
        return False


def _with_data(place: str, changes: Mapping[str, Any], before: Config) -> dict[str, Any]:
    """The changes with the data that lies at a path or URL.

    Changed fields of the data go with it; what the recipe says of pixels, such as resolution and flip, is kept.
    """
    own = {name.removeprefix(DATA): value for name, value in changes.items() if name.startswith(DATA)}
    shared = (PixelsConfig.model_fields.keys() & type(before).model_fields.keys()) - {"kind"}
    others = {name: value for name, value in changes.items() if not name.startswith(DATA)}
    return {**others, "data": data_at(place, own, {name: getattr(before, name) for name in shared})}


def listing() -> str:
    """Names and purposes of all recipes, for people."""
    named = catalogue()
    width = max(map(len, named)) + 2
    return "\n".join(
        textwrap.fill(recipe.about, 120, initial_indent=name.ljust(width), subsequent_indent=" " * width)
        for name, recipe in named.items()
    )
