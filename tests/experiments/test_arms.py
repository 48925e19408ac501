"""What whole comparisons share: their options, their picture, and that they know the public names only."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import arms
from experiments.arms import GAP, Scale, command


def test_what_cannot_be_measured_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Protects the cost of a step from a division by nothing: too few steps end in one line before anything runs."""

    def never(scale: Scale, runs: Path, out: Path | None) -> Path:
        raise AssertionError("nothing shall run")

    assert command(["--steps", "29", "--runs", str(tmp_path)], "an experiment", Scale, never) == 2
    assert "29" in (said := capsys.readouterr().err) and "30" in said
    assert command(["--seeds", "0"], "an experiment", Scale, never) == 2
    assert "0 seeds" in capsys.readouterr().err


def test_a_row_for_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the pictures: runs from top to bottom, labels from left to right, the sampler of each run's evaluation,
    one seed, no guidance."""
    asked = []

    def load(folder: Path) -> SimpleNamespace:
        def sample(labels: torch.Tensor, **settings: object) -> torch.Tensor:
            asked.append((folder.name, settings["seed"], settings["sampler"], settings["guidance"].scale))
            return (labels * 10 + int(folder.name)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)

        sampler = f"sampler {folder.name}"
        return SimpleNamespace(
            recipe=SimpleNamespace(evaluation=SimpleNamespace(sampler=sampler)), sample=sample
        )  # fmt: skip

    monkeypatch.setattr(arms, "repae", SimpleNamespace(load=load))
    arms.write_digits(tmp_path / "new" / "rows.png", [Path("0"), Path("5")])
    picture = np.asarray(Image.open(tmp_path / "new" / "rows.png"))
    assert picture.shape == (2 * (8 + GAP) + GAP, 20 * (8 + GAP) + GAP)
    assert [picture[GAP + 1, GAP + column * (8 + GAP)] for column in (0, 1, 2, 19)] == [0, 0, 10, 90]
    assert picture[GAP + 8 + GAP, GAP + 3 * (8 + GAP)] == 15 and picture[0, 0] == arms.BACKGROUND
    assert asked == [("0", 7, "sampler 0", 1.0), ("5", 7, "sampler 5", 1.0)]
