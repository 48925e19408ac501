"""What is done with a run: `repae sample`, `evaluate`, `report`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.words import Command, Words, say

_RUN = "the run, a folder that `repae train` made,"

_SAMPLE_MORE = """\
Writes a grid (PNG) and the images (npz). Without options: as the run's own previews, ten of each class.

  repae sample runs/digits --classes 3,7 --per-class 20
  repae sample runs/digits --count 500 --sampler.kind euler-maruyama --sampler.steps 250 --guidance.scale 1"""


def _sample(words: Words) -> None:
    folder = Path(words.only(_RUN))
    from repae.recipes.outcome import sample
    from repae.recipes.settings import sample_settings

    say(f"done: {sample(folder, sample_settings(folder, words.options))}")


def _sample_fields(words: Words) -> str:
    from repae.recipes.options import list_options
    from repae.recipes.settings import SampleSettings

    return list_options(SampleSettings(), title="what is drawn")


def _evaluate(words: Words) -> None:
    folder, bundle = Path(words.only(_RUN)), words.take("bundle")
    words.nothing_left("bundle")
    from repae.recipes.outcome import evaluate

    figures = evaluate(folder, bundle)
    numbers = [f"{name:20} {value:.4g}" for name, value in figures.items() if isinstance(value, (int, float))]
    say("\n".join([*numbers, *figures["notes"], f"done: {folder / 'report.html'}"]))


def _report(words: Words) -> None:
    folder = Path(words.only(_RUN))
    words.nothing_left()
    from repae.report import build

    say(f"done: {build(folder)}")


COMMANDS = {
    "sample": Command(
        "RUN [--FIELD VALUE ...]", "draw images from a run", _sample, more=_SAMPLE_MORE, fields=_sample_fields
    ),
    "evaluate": Command(
        "RUN [--bundle live|ema|reference]",
        "measure a run: generated images and reconstruction",
        _evaluate,
        more="Writes evaluation.json into the run's folder, figures with the protocol that made them.",
    ),
    "report": Command("RUN", "write report.html of a run again, from its files", _report),
}
