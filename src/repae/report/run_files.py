"""What a run has left behind, read from its files only; what is missing or unreadable is None."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
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

    def read(name: str, reader: Callable[[Path], Any]) -> Any:
        if not (folder / name).exists():
            return None
        try:
            return reader(folder / name)
        except (OSError, ValueError):
            damaged.append(name)
            return None

    def read_table(name: str) -> dict[str, Any] | None:
        found = read(name, _read_json)
        return found if isinstance(found, dict) else None

    recipe, metrics = read("recipe.yaml", read_yaml), read("metrics.jsonl", read_metrics)
    environment, evaluation = read_table("environment.json"), read_table("evaluation.json")
    teachers = read("teacher.json", _read_json) or []
    return RunFiles(
        folder,
        (folder / "recipe.yaml").read_text(encoding="utf-8", errors="replace") if recipe else None,
        recipe or {},
        environment,
        metrics or [],
        [item for item in ([teachers] if isinstance(teachers, dict) else teachers) if isinstance(item, dict)],
        evaluation,
        read_table("samples/gallery/gallery.json"),
        read_table("checkpoints/best.json"),
        tuple(damaged),
    )


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
