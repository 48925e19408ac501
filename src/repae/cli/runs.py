"""What is done with a run: `repae sample`, `evaluate`, `report`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.words import Command, Words, say

_RUN = "the run, a folder that `repae train` made,"

_SAMPLE_MORE = """\
Writes images (npz, png or shards), a grid of the first ones, and a manifest that says what made them, into a folder
named after the settings. Without options: as the run's own previews, ten of each class. Killed, it goes on.

  repae sample runs/digits --classes 3,7 --per-class 20
  repae sample runs/digits --num 500 --sampler.kind euler-maruyama --sampler.steps 250 --guidance.scale 1
  repae sample runs/digits --preset paper --format png
  repae sample runs/digits --guidance.kind autoguidance --guidance.step 400 --guidance.scale 1.5
  torchrun --nproc-per-node 8 -m repae sample runs/digits --num 50000"""


def _sample(words: Words) -> None:
    folder, preset = Path(words.only(_RUN)), words.take("preset")
    from repae.recipes.drawing import sample
    from repae.recipes.settings import sample_settings

    drawn = sample(folder, sample_settings(folder, words.options, preset))
    say(f"{drawn.words}\ndone: {drawn.folder}")


def _sample_fields(words: Words) -> str:
    from repae.recipes.options import list_options
    from repae.recipes.settings import PRESETS, SampleSettings

    presets = "\n".join(f"  --preset {name.ljust(14)}{about}" for name, about in PRESETS.items())
    return f"{presets}\n\n{list_options(SampleSettings(), title='what is drawn')}"


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
        "RUN [--preset NAME] [--FIELD VALUE ...]",
        "draw images from a run",
        _sample,
        more=_SAMPLE_MORE,
        fields=_sample_fields,
    ),
    "evaluate": Command(
        "RUN [--bundle live|ema|reference]",
        "measure a run: generated images and reconstruction",
        _evaluate,
        more="Writes evaluation.json into the run's folder, figures with the protocol that made them.",
    ),
    "report": Command("RUN", "write report.html of a run again, from its files", _report),
}
