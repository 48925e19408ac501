"""What to evaluate: a run as its recipe says, or images made anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt

from repae.commands.sample_settings import recipe_of
from repae.config import UserError
from repae.config.options import read_options
from repae.evaluation.settings import ComparisonConfig, EvaluationConfig, FeaturesConfig, InceptionConfig
from repae.training.state import BundleName

_KINDS = ("inception", "dinov2", "timm", "embedded")
"""Kinds of networks that `--features` names by one word."""


class RunEvaluation(EvaluationConfig):
    """How a run is evaluated on the images it was trained on: the recipe's own evaluation, changed.

    Attributes:
        bundle: which weights; none takes the recipe's choice.
        pictures: also draw the gallery into ``samples/gallery``; it takes some hundred images more.
    """

    bundle: BundleName | None = None
    pictures: bool = True


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


def run_evaluation(run: Path, options: Mapping[str, str | None]) -> RunEvaluation:
    """The evaluation of a run's recipe, changed by options of the command line.

    Raises:
        UserError: no run there, or an option that is unknown or not allowed.
    """
    kinds = [{"kind": kind} for kind in (options.get("features") or "").split(",")]
    named = {**options, "features": str(kinds)} if all(kind["kind"] in _KINDS for kind in kinds) else options
    changes = read_options(RunEvaluation, named)
    RunEvaluation().replace(**changes)
    own = recipe_of(run).evaluation.model_dump(exclude={"every", "quick_images"})
    return RunEvaluation(**own).replace(**changes)


def images_evaluation(options: Mapping[str, str | None]) -> ImagesEvaluation:
    """The comparison that options of the command line ask for.

    Raises:
        UserError: an option that is unknown, missing or not allowed.
    """
    for name, what in (("images", "the images to measure"), ("reference", "the images or statistics to compare with")):
        if not options.get(name):
            raise UserError(f"--{name} is missing: {what}, a folder or an npz file")
    named = {"features.kind" if name == "features" and text in _KINDS else name: text for name, text in options.items()}
    base = ImagesEvaluation(images=str(options["images"]), reference=str(options["reference"]))
    return base.replace(**read_options(ImagesEvaluation, named))
