"""The data at a path, as a person gives it on a command line, with the fields that are given beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repae.config import UserError
from repae.config.options import read_options
from repae.data import DataConfig, DigitsConfig, ShardsConfig
from repae.data.images import PixelsConfig
from repae.data.sources.detect import detect
from repae.recipes.recipe import Recipe
from repae.recipes.saved import read_recipe

log = logging.getLogger("repae")

DATA = "data."


def data_at(place: str, given: Mapping[str, Any], otherwise: Mapping[str, Any]) -> DataConfig:
    """The data set at a path or URL, whatever it is; see `repae.data.sources.detect`.

    Args:
        place: a path or URL.
        given: fields that somebody asked for; one that this kind of data does not have is refused.
        otherwise: values of fields that nobody gave, for the kinds that have them.

    Raises:
        UserError: there is nothing to train on, or a field is unknown or not allowed.
    """
    found = detect(place, **given)
    fields = type(found).model_fields
    found = found.replace(**{name: value for name, value in otherwise.items() if name in fields and name not in given})
    if isinstance(found, ShardsConfig) and not any(found.missing()):
        wanted = otherwise.get("resolution", found.resolution)
        if found.resolution != wanted:
            log.warning("%s was prepared at %d px, which is what counts, not %d", place, found.resolution, wanted)
    return found


def image_source(place: str, options: Mapping[str, str | None], otherwise: Mapping[str, Any]) -> PixelsConfig:
    """Images at a path that are still files, with the options ``--data.FIELD`` that say how to read them.

    Raises:
        UserError: as `data_at`; or what is there is prepared already.
    """
    changes = read_options(Recipe, {name: text for name, text in options.items() if name.startswith(DATA)})
    found = data_at(place, {name.removeprefix(DATA): value for name, value in changes.items()}, otherwise)
    if isinstance(found, (ShardsConfig, DigitsConfig)):
        raise UserError(f"{place} holds prepared images already; train from it with --data {place}")
    return found


def data_of_run(source: Path, data: str | None, resolution: int | None) -> DataConfig:
    """The data that ``data`` names, at the run's resolution; without a name the run's own."""
    run = read_recipe(source / "recipe.yaml") if (source / "recipe.yaml").is_file() else None
    if data is None:
        if run is None:
            raise UserError(f"{source} is no run, so that nothing says which images; give them with --data FOLDER")
        return run.data.replace(resolution=resolution) if resolution else run.data
    side = resolution or (256 if run is None else run.data.resolution)
    if data == "digits":
        return DigitsConfig(resolution=side)
    return data_at(data, {}, {"resolution": side, "flip": run is not None and getattr(run.data, "flip", False)})
