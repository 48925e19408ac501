"""What to draw from a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, NonNegativeInt, PositiveInt

from repae.config import Config, UserError
from repae.flow.guidance import Guidance
from repae.flow.samplers import AnySampler, Euler
from repae.recipes.options import read_options
from repae.recipes.recipe import Recipe
from repae.train.state import BundleName

UNGUIDED = Guidance(scale=1.0, low=0.0, high=1.0)


class SampleSettings(Config):
    """Images of chosen classes, each a function of seed and number only.

    Attributes:
        classes: labels to draw, one row of the grid each; none draws all, or ten of them spread evenly.
        per_class: images of each class.
        count: so many images over all classes instead, balanced.
        seed: of the initial noise and of a stochastic sampler.
        sampler: how the velocity is integrated.
        guidance: classifier-free guidance; scale 1 is none.
        bundle: which weights; none takes the recipe's choice.
        batch_size: images at a time; it changes the memory needed and nothing else.
        out: folder for the grid and the npz file; none puts them into the run's folder.
    """

    classes: tuple[NonNegativeInt, ...] | None = None
    per_class: PositiveInt = 10
    count: PositiveInt | None = None
    seed: NonNegativeInt = 0
    sampler: AnySampler = Euler(steps=50)
    guidance: Guidance = UNGUIDED
    bundle: BundleName | None = None
    batch_size: PositiveInt = 256
    out: str | None = Field(default=None, min_length=1)


def sample_settings(run: Path, options: Mapping[str, str | None]) -> SampleSettings:
    """The sampler and the guidance of a run's own previews, changed by options of the command line.

    Raises:
        UserError: no run there, or an option that is unknown or not allowed.
    """
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run} is no run: it has no recipe.yaml; give a folder that `repae train` made")
    recipe = Recipe.from_yaml(run / "recipe.yaml")
    guided = recipe.sit.class_dropout_prob > 0
    base = SampleSettings(sampler=recipe.preview.sampler, guidance=recipe.preview.guidance if guided else UNGUIDED)
    return base.replace(**read_options(SampleSettings, options))
