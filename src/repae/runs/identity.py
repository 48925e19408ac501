"""Whether a folder holds the run that is about to go on in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repae.config import UserError
from repae.recipes.recipe import Recipe
from repae.recipes.saved import read_recipe
from repae.runtime.checkpoint import CheckpointStore

FREE = (
    "about",
    "target",
    "bundle",
    "track.",
    "preview.",
    "evaluation.",
    "runtime.threads",
    "runtime.workers",
    "data.cache",
    "loop.log_every",
    "loop.checkpoint_every",
    "loop.keep_last",
    "loop.best",
)
"""Fields that a resumed run may change: they alter no weight; ``loop.steps`` too if no schedule ends."""


def check_same_run(recipe: Recipe, folder: Path) -> None:
    """Refuses a folder with checkpoints of another run, naming the fields that differ and would alter a weight."""
    path = folder / "recipe.yaml"
    # Without a checkpoint nothing has been trained there, and any recipe may take the folder.
    if path.exists() and CheckpointStore(folder / "checkpoints").latest() is not None:
        before, now = read_recipe(path).model_dump(mode="json"), recipe.model_dump(mode="json")
        free = FREE if schedules_depend_on_steps(recipe) else (*FREE, "loop.steps")
        if differing := differences(before, now, free):
            raise UserError(
                f"{folder} holds a run of another recipe: {differing}. "
                "Give this run another --name, or remove that folder, or restore the fields to go on with it"
            )


def differences(before: Any, now: Any, free: tuple[str, ...] = ()) -> str:
    """What differs between two trees of plain values, by dotted name, the first five in words; nothing if nothing does.

    Names that begin with one of ``free`` may differ.
    """
    before, now = _flat(before), _flat(now)
    found = [
        f"{name} was {before.get(name)!r}, is now {now.get(name)!r}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name) and not name.startswith(free)
    ]
    return "; ".join(found[:5]) + (f"; and {len(found) - 5} more" if len(found) > 5 else "")


def schedules_depend_on_steps(recipe: Recipe) -> bool:
    """Whether another number of total steps would change a learning rate or weight of a step already made."""
    optimisers = recipe.optimisers
    players = (optimisers.denoiser, optimisers.vae, optimisers.discriminator)
    return recipe.method.traits.depends_on_total or any(player.schedule.depends_on_total for player in players)


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list) and tree:
        items = ((str(position), item) for position, item in enumerate(tree))
    else:
        return {prefix[:-1]: tree}
    return {name: leaf for key, value in items for name, leaf in _flat(value, f"{prefix}{key}.").items()}
