"""Evaluation during training: what `repae evaluate` does, on fewer images, its figures among the metrics."""

from __future__ import annotations

from repae.config import UserError, suggest
from repae.data import Dataset
from repae.evaluation import EvaluationConfig, Evaluator
from repae.flow import Euler
from repae.recipes.recipe import EVALUATED, Recipe
from repae.runs.context import RunContext
from repae.runs.networks import networks_at_hand
from repae.runtime.distributed import is_main
from repae.training.method import MethodStep

REHEARSED = 64
"""Images of the rehearsal: more than any figure's number of neighbours needs."""

OF_THE_DATA = ("_floor", "_real")
"""How the names of figures end that no training changes."""


class Monitor:
    """A hook that evaluates the recipe's bundle every so many steps, and takes no random number of the training's.

    Where the best checkpoint is chosen by one of its figures, a rehearsal on a few images, before the first step, says
    whether there is such a figure.

    Raises:
        UserError: a network that the recipe names has no weights, or there is no figure as `loop.best` names it.
    """

    def __init__(self, recipe: Recipe, step: MethodStep, dataset: Dataset, context: RunContext) -> None:
        assert recipe.evaluation.every is not None
        self.every = recipe.evaluation.every
        self._recipe, self._step, self._dataset, self._context = recipe, step, dataset, context
        self._settings = recipe.evaluation.quick()
        if is_main():
            self._networks = networks_at_hand(recipe, self._settings, dataset, context)
            self._check_best()

    def __call__(self, step: int) -> dict[str, float]:
        """The figures after step ``step``, on the main process; the others have none and wait for it in the loop."""
        return self._figures(self._settings) if is_main() else {}

    def _figures(self, settings: EvaluationConfig) -> dict[str, float]:
        figures = Evaluator(
            self._step.bundle(self._recipe.own_bundle),
            self._dataset,
            settings,
            precision=self._context.precision,
            path=self._recipe.path,
            networks=self._networks,
            cache=self._context.runs / "cache",
            passing=True,
        ).evaluate()
        return {
            f"{EVALUATED}{name}": float(figure)
            for name, figure in figures.items()
            if isinstance(figure, (int, float)) and not name.endswith(OF_THE_DATA)
        }

    def _check_best(self) -> None:
        best = self._recipe.loop.best
        if best is None or not best.metric.startswith(EVALUATED):
            return
        few = min(REHEARSED, self._settings.images)
        rehearsal = self._settings.replace(
            images=few, guided_images=2, sampler=Euler(steps=1, state=self._settings.sampler.state)
        )
        found = self._figures(rehearsal)
        if best.metric not in found:
            hint = suggest(best.metric, found)
            raise UserError(f"loop.best.metric: no evaluation finds {best.metric!r}{hint}; it finds {', '.join(found)}")
