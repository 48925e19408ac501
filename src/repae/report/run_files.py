"""What a run has left behind, read from its files only; what is missing or unreadable is None."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from repae.config import Config, UserError, check, read_yaml
from repae.track import read_metrics
from repae.training.method import MethodTraits
from repae.training.methods import AnyMethod


class _WithMethod(Config, extra="ignore"):
    """What is read of a recipe here, whatever else stands in it."""

    method: AnyMethod


class RunFiles(NamedTuple):
    """The files of one run, read. `damaged`: names of files that are there and cannot be read."""

    folder: Path
    recipe_text: str | None
    recipe: dict[str, Any]
    environment: dict[str, Any] | None
    metrics: list[dict[str, Any]]
    teachers: list[dict[str, Any]]
    evaluation: dict[str, Any] | None
    gallery: dict[str, Any] | None
    best: dict[str, Any] | None
    damaged: tuple[str, ...]

    def of_recipe(self, dotted: str) -> Any:
        value: Any = self.recipe
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def traits(self) -> MethodTraits | None:
        """What the run's method says of itself; None where the recipe names none that is known here."""
        with suppress(UserError):
            return check(_WithMethod, self.recipe, "recipe.yaml").method.traits
        return None

    @property
    def generates(self) -> bool:
        """Whether there are samples to show; so it is said of a method that is not known."""
        return self.traits is None or self.traits.generates

    def picture(self, name: str) -> Path | None:
        path = self.folder / "samples" / name
        return path if path.is_file() else None

    def previews(self) -> list[tuple[int, Path]]:
        """Steps and pictures of `samples/step-*.png`, in order."""
        found = [
            (re.fullmatch(r"step-(\d+)\.png", path.name), path) for path in (self.folder / "samples").glob("*.png")
        ]
        return sorted((int(match[1]), path) for match, path in found if match)

    def steps_done(self) -> int:
        """The last step that was logged; 0 where none was."""
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    def seconds(self) -> float | None:
        """Time spent in the training loop, over all resumes; None where no clock was logged."""
        total = last = 0.0
        seen = False
        for record in self.metrics:
            now = record.get("wall", {}).get("seconds")
            if now is not None:
                seen = True
                # A process that resumes starts its clock at 0 again.
                total, last = (total + last if now < last else total), now
        return total + last if seen else None


def read_run(folder: Path) -> RunFiles:
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder of a run; give one that `repae train` has made, such as runs/digits")
    damaged: list[str] = []

    def json_of(name: str) -> Any:
        try:
            return json.loads((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            damaged.append(name)
            return None

    try:
        recipe = read_yaml(folder / "recipe.yaml") if (folder / "recipe.yaml").exists() else {}
    except UserError:
        recipe = {}
        damaged.append("recipe.yaml")
    try:
        metrics = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    except UserError:
        metrics = []
        damaged.append("metrics.jsonl")
    text = (folder / "recipe.yaml").read_text(encoding="utf-8", errors="replace") if recipe else None
    environment, evaluation, teachers = json_of("environment.json"), json_of("evaluation.json"), json_of("teacher.json")
    gallery, best = json_of("samples/gallery/gallery.json"), json_of("checkpoints/best.json")
    return RunFiles(
        folder,
        text,
        recipe,
        environment if isinstance(environment, dict) else None,
        metrics,
        [teachers] if isinstance(teachers, dict) else [item for item in teachers or [] if isinstance(item, dict)],
        evaluation if isinstance(evaluation, dict) else None,
        gallery if isinstance(gallery, dict) else None,
        best if isinstance(best, dict) else None,
        tuple(damaged),
    )
