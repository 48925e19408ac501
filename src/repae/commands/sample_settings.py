"""What to draw from a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from repae.config import Config, UserError, suggest
from repae.config.options import read_options
from repae.flow.guidance import UNGUIDED, Autoguidance, Guidance
from repae.flow.samplers import AnySampler, Euler, EulerMaruyama, Heun
from repae.preparation.part import MachinePart
from repae.recipes.recipe import Recipe
from repae.recipes.saved import check_run, read_recipe
from repae.training.state import BundleName

PER_CLASS = 10
"""Images of each class where neither their number nor that of all images is given."""


class RunAutoguidance(Autoguidance):
    """Guidance by a weaker run: an earlier checkpoint of this one, or a smaller or shorter one on the same latents.

    Attributes:
        run: the weaker run's folder; none is the run itself, then with an earlier step.
        step: the step of the weaker checkpoint; none is its newest.
        scale: 1 is no guidance.
        low: guidance acts from this time on.
        high: and up to this one.
    """

    run: str | None = Field(default=None, min_length=1)
    step: NonNegativeInt | None = None

    @model_validator(mode="after")
    def _weaker(self) -> RunAutoguidance:
        if self.run is None and self.step is None:
            raise ValueError(
                "autoguidance needs a weaker network: give guidance.step, an earlier checkpoint of this run, or "
                "guidance.run, the folder of another"
            )
        return self


AnyGuidance = Annotated[Guidance | RunAutoguidance, Field(discriminator="kind")]
"""The guidance that sampling can name, told apart by `kind`."""


class SampleSettings(Config):
    """Images of chosen classes, each a function of its number and of these settings.

    Attributes:
        num: so many images over all classes or the chosen ones; none draws per_class of each.
        classes: labels to draw; none is all, or ten of them spread evenly where num is none.
        per_class: images of each class, one row of the grid each; 10 unless num is given.
        labels: with num, image i has class i modulo their number (balanced), or one drawn by seed and i (random).
        seed: of the initial noise, of a stochastic sampler and of random labels.
        sampler: how the velocity is integrated.
        guidance: of the network; scale 1 is none.
        bundle: which weights; none takes the recipe's choice.
        step: of which checkpoint; none takes the newest.
        precision: of the network; none takes the recipe's. The state of the sampler has its own (sampler.state).
        device: where to; none takes the recipe's.
        batch_size: images at a time; it changes memory and speed, and the rounding of matrix products.
        format: samples.npz, a PNG file for each image, or a .npy file for each batch.
        part: draw only part 2 of 8, say, as 2/8, for machines that do not know each other.
        out: folder for what is drawn; none makes one in the run's folder samples, named after the settings.
        progress: show how far it is.
    """

    num: PositiveInt | None = None
    classes: tuple[NonNegativeInt, ...] | None = Field(default=None, min_length=1)
    per_class: PositiveInt | None = None
    labels: Literal["balanced", "random"] = "balanced"
    seed: NonNegativeInt = 0
    sampler: AnySampler = Euler(steps=50)
    guidance: AnyGuidance = UNGUIDED
    bundle: BundleName | None = None
    step: NonNegativeInt | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None
    batch_size: PositiveInt = 64
    format: Literal["npz", "png", "shards"] = "npz"
    part: str | None = None
    out: str | None = Field(default=None, min_length=1)
    progress: bool = True

    @model_validator(mode="after")
    def _consistent(self) -> SampleSettings:
        if self.num is not None and self.per_class is not None:
            raise ValueError(
                f"num is {self.num} and per_class is {self.per_class}; only one of them can be kept: drop one"
            )
        if self.num is None and self.labels == "random":
            raise ValueError("labels is random, but per_class says how many there are of each; give num instead")
        if self.classes and len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes is {list(self.classes)}; each may stand there once")
        MachinePart.read(self.part or "1/1")
        return self

    @property
    def share(self) -> tuple[int, int]:
        """Which part of how many, the first being 0."""
        part = MachinePart.read(self.part or "1/1")
        return part.number - 1, part.of


def sample_settings(run: Path, options: Mapping[str, str | None], preset: str | None = None) -> SampleSettings:
    """The sampler and the guidance of a run's own previews, or a preset, changed by options of the command line."""
    recipe = recipe_of(run)
    guided = recipe.backbone.class_dropout_prob > 0
    base = SampleSettings(sampler=recipe.preview.sampler, guidance=recipe.preview.guidance if guided else UNGUIDED)
    changes = read_options(SampleSettings, options)
    if preset is None:
        return base.replace(**changes)
    presets = _presets(recipe.evaluation.guidance if guided else UNGUIDED)
    if preset not in presets:
        raise UserError(f"preset {preset!r} is unknown; allowed: {', '.join(presets)}{suggest(preset, presets)}")
    if preset == "paper-guided" and not guided:
        raise UserError("preset 'paper-guided' needs a model with a null class, and this one has none; use 'paper'")
    chosen = presets[preset]
    if changes.get("per_class") is not None:  # which takes the place of the preset's number of images
        chosen = chosen.replace(num=None)
    return chosen.replace(**changes)


PRESETS = {
    "preview": "64 images, Euler with 50 steps, guidance 2 on [0, 1]",
    "quality": "Heun with 250 steps (499 evaluations), the guidance of the run's evaluation",
    "paper": "50,000 images, Euler-Maruyama with 250 steps and the mean as its last, no guidance, balanced labels",
    "paper-guided": "the same with the guidance of the run's evaluation: in a published recipe, the published one",
}
"""The guide's three presets, corrected, and the paper's second protocol."""


def _presets(evaluated: Guidance) -> dict[str, SampleSettings]:
    """Where they leave the guide: its SDE was an ODE, its Heun is no method for an SDE, and its guidance of 4 and 6
    stands in no paper (the published scales are 1.8 to 2.5 on a part of the interval).
    """
    paper = SampleSettings(num=50_000, sampler=EulerMaruyama(steps=250, last="mean"), guidance=UNGUIDED)
    unguided = evaluated == UNGUIDED
    return {
        "preview": SampleSettings(
            num=64, sampler=Euler(steps=50), guidance=UNGUIDED if unguided else Guidance(scale=2.0, low=0.0, high=1.0)
        ),
        "quality": SampleSettings(sampler=Heun(steps=250), guidance=evaluated),
        "paper": paper,
        "paper-guided": paper.replace(guidance=evaluated),
    }


def recipe_of(run: Path) -> Recipe:
    check_run(run)
    return read_recipe(run / "recipe.yaml")
