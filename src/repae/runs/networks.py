"""Which networks are at hand to evaluate a run with, and what is missing for the others."""

from __future__ import annotations

from repae.config import UserError
from repae.data import Dataset
from repae.evaluation import EvaluationConfig, FeatureExtractor, LpipsConfig, Networks, TeacherFeatures
from repae.evaluation.inception import WEIGHTS_FILE, cached_weights
from repae.evaluation.perceptual import FILES, LpipsMeter
from repae.evaluation.settings import InceptionConfig
from repae.models.teachers.timm import TimmTeacher
from repae.recipes.recipe import EmbeddedTeacherTraining, Recipe
from repae.runs.context import RunContext
from repae.runs.players import embedded_at_hand


def networks_at_hand(recipe: Recipe, settings: EvaluationConfig, dataset: Dataset, context: RunContext) -> Networks:
    """The networks that ``settings`` names, and without being named: the run's own teachers, the Inception and the
    backbone of LPIPS where their weights lie in torch's cache. Nothing is trained and nothing downloaded unasked.

    Raises:
        UserError: a network that is named has no weights.
    """
    extractors = [config.open(context.device) for config in settings.features]
    missing: list[str] = []
    extractors += _teachers(recipe, dataset, context, missing)
    if dataset.channels == 3 and not any(isinstance(config, InceptionConfig) for config in settings.features):
        if cached_weights() is None:
            missing.append(
                f"No FID: {WEIGHTS_FILE} of torch-fidelity's release v0.2.0 is not in torch's cache of downloads; put "
                "it there, or name the network with its weights: --features '[{kind: inception, weights: FILE}]'."
            )
        else:
            extractors.append(InceptionConfig().open(context.device))
    return Networks(extractors, _lpips(settings, context, missing), missing)


def _teachers(recipe: Recipe, dataset: Dataset, context: RunContext, missing: list[str]) -> list[FeatureExtractor]:
    """The first teacher of the run as "teacher", further ones numbered."""
    found: list[FeatureExtractor] = []
    for number, config in enumerate(recipe.teachers, 1):
        name = "teacher" if number == 1 else f"teacher{number}"
        try:
            if isinstance(config, EmbeddedTeacherTraining):
                network = embedded_at_hand(config, dataset, context)
            else:
                network = TimmTeacher(config)
        except UserError as error:
            missing.append(f"No figure in the features of {name}: {error}.")
            continue
        if network is None:
            missing.append(f"No figure in the features of {name}: it is no longer kept in {context.runs / 'cache'}.")
        else:
            found.append(TeacherFeatures(network.to(context.device), name, "mean"))
    return found


def _lpips(settings: EvaluationConfig, context: RunContext, missing: list[str]) -> LpipsMeter | None:
    if settings.lpips is not None:
        return settings.lpips.open(context.device)
    config = LpipsConfig()
    if config.path.is_file():
        return config.open(context.device)
    missing.append(
        f"No LPIPS: torchvision's {FILES[config.net]} is not in torch's cache of downloads; put it there, or give it "
        "as --lpips.weights FILE."
    )
    return None
