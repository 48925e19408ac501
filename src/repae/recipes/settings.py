"""What to draw from a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from repae.config import Config, UserError
from repae.evaluate.settings import ComparisonConfig, EvaluationConfig, FeaturesConfig, InceptionConfig
from repae.flow.guidance import Guidance
from repae.flow.samplers import AnySampler, Euler
from repae.recipes.options import read_options
from repae.recipes.recipe import Recipe
from repae.train.state import BundleName

UNGUIDED = Guidance(scale=1.0, low=0.0, high=1.0)

_KINDS = ("inception", "dinov2", "timm", "embedded")
"""Kinds of networks that `--features` names by one word."""


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


class RunEvaluation(EvaluationConfig):
    """How a run is judged on the images it was trained on: the recipe's own evaluation, changed.

    Attributes:
        bundle: which weights; none takes the recipe's choice.
    """

    bundle: BundleName | None = None


class ImagesEvaluation(ComparisonConfig):
    """Images made anywhere, compared with a reference in the features of one network.

    Attributes:
        images: a folder, or an npz file with `arr_0` [N, H, W, 3] uint8.
        reference: the same, or an npz file with `mu` and `sigma` (and `mu_s` and `sigma_s`), ADM's layout.
        resolution: cut the centre of every image of a folder to this size, as ADM does; none takes them as they are.
        features: the network.
        batch_size: images at a time; it changes the memory needed and nothing else.
        device: where the network computes.
        cache: folder in which features are kept.
        out: the JSON file for figures and protocol; none puts it beside the images.
    """

    images: str = Field(min_length=1)
    reference: str = Field(min_length=1)
    resolution: PositiveInt | None = None
    features: FeaturesConfig = InceptionConfig()
    batch_size: PositiveInt = 64
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    cache: str = Field(default="runs/cache", min_length=1)
    out: str | None = Field(default=None, min_length=1)


def sample_settings(run: Path, options: Mapping[str, str | None]) -> SampleSettings:
    """The sampler and the guidance of a run's own previews, changed by options of the command line.

    Raises:
        UserError: no run there, or an option that is unknown or not allowed.
    """
    recipe = _recipe_of(run)
    guided = recipe.sit.class_dropout_prob > 0
    base = SampleSettings(sampler=recipe.preview.sampler, guidance=recipe.preview.guidance if guided else UNGUIDED)
    return base.replace(**read_options(SampleSettings, options))


def run_evaluation(run: Path, options: Mapping[str, str | None]) -> RunEvaluation:
    """The evaluation of a run's recipe, changed by options of the command line.

    Raises:
        UserError: no run there, or an option that is unknown or not allowed.
    """
    kinds = [{"kind": kind} for kind in (options.get("features") or "").split(",")]
    named = {**options, "features": str(kinds)} if all(kind["kind"] in _KINDS for kind in kinds) else options
    changes = read_options(RunEvaluation, named)
    RunEvaluation().replace(**changes)
    return RunEvaluation(**_recipe_of(run).evaluation.model_dump()).replace(**changes)


def images_evaluation(options: Mapping[str, str | None]) -> ImagesEvaluation:
    """The comparison that options of the command line ask for.

    Raises:
        UserError: an option that is unknown, missing or not allowed.
    """
    for name, what in (("images", "the images to judge"), ("reference", "the images or statistics to compare with")):
        if not options.get(name):
            raise UserError(f"--{name} is missing: {what}, a folder or an npz file")
    named = {"features.kind" if name == "features" and text in _KINDS else name: text for name, text in options.items()}
    base = ImagesEvaluation(images=str(options["images"]), reference=str(options["reference"]))
    return base.replace(**read_options(ImagesEvaluation, named))


def _recipe_of(run: Path) -> Recipe:
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{run} is no run: it has no recipe.yaml; give a folder that `repae train` made")
    return Recipe.from_yaml(run / "recipe.yaml")
