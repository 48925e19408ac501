"""`repae demo`: the whole way on the embedded digits."""

from __future__ import annotations

from pathlib import Path

from repae.commands.evaluate import evaluate_run
from repae.commands.train import train
from repae.recipes.catalogue import find


def demo(runs: Path = Path("runs")) -> Path:
    """Trains, samples, evaluates and reports; gives the run's folder, ``runs/demo``."""
    folder = train(find("digits").replace(name="demo"), runs)
    evaluate_run(folder)
    return folder
