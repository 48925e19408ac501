"""What is done with a run: `repae sample`, `evaluate`, `compare`, `report`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.arguments import Arguments, Command, say

_RUN = "the run, a folder that `repae train` made,"

_SAMPLE_MORE = """\
Writes images (npz, png or shards), a grid of the first ones, and a manifest that says what made them, into a folder
named after the settings. Without options: as the run's own previews, ten of each class. Killed, it goes on.

  repae sample runs/digits --classes 3,7 --per-class 20
  repae sample runs/digits --num 500 --sampler.kind euler-maruyama --sampler.steps 250 --guidance.scale 1
  repae sample runs/digits --preset paper --format png
  repae sample runs/digits --guidance.kind autoguidance --guidance.step 400 --guidance.scale 1.5
  torchrun --nproc-per-node 8 -m repae sample runs/digits --num 50000"""


def _sample(arguments: Arguments) -> None:
    folder, preset = Path(arguments.only(_RUN)), arguments.take("preset")
    from repae.commands.sample import sample_run
    from repae.commands.sample_settings import sample_settings

    drawn = sample_run(folder, sample_settings(folder, arguments.options, preset))
    say(f"{drawn.words}\ndone: {drawn.folder}")


def _sample_fields(arguments: Arguments) -> str:
    from repae.commands.sample_settings import PRESETS, SampleSettings
    from repae.config.options import list_options

    presets = "\n".join(f"  --preset {name.ljust(14)}{about}" for name, about in PRESETS.items())
    return f"{presets}\n\n{list_options(SampleSettings(), title='what is drawn')}"


_EVALUATE_MORE = """\
Of a run: generated images, reconstruction and latents against the images it was trained on, in the features of the
networks at hand. Writes evaluation.json into the run's folder, figures with the protocol that made them.

  repae evaluate runs/digits
  repae evaluate runs/cats --images 5000 --sampler.steps 50 --features dinov2,inception

Of images made anywhere: against a folder, an npz file of images, or stored statistics, ADM's reference files included.

  repae evaluate --images samples.npz --reference VIRTUAL_imagenet256_labeled.npz
  repae evaluate --images FOLDER --reference FOLDER --features dinov2 --metrics fid,precision-recall"""


def _evaluate(arguments: Arguments) -> None:
    arguments.at_most(1)
    from repae.commands.compare import figures_table

    if arguments.positional:
        from repae.commands.evaluate import evaluate_run, run_evaluation

        folder = Path(arguments.positional[0])
        figures, made = evaluate_run(folder, run_evaluation(folder, arguments.options)), folder / "report.html"
    elif "images" in arguments.options or "reference" in arguments.options:
        from repae.commands.evaluate_images import evaluate_images, images_evaluation

        figures, made = evaluate_images(images_evaluation(arguments.options))
    else:
        arguments.only(f"{_RUN} or --images and --reference,")
        return
    say(f"{figures_table(figures)}\ndone: {made}")


def _evaluate_fields(arguments: Arguments) -> str:
    from repae.commands.evaluate import RunEvaluation
    from repae.commands.evaluate_images import ImagesEvaluation
    from repae.config.options import list_options

    run = list_options(RunEvaluation(), title="how a run is evaluated")
    images = list_options(ImagesEvaluation(images="FILE", reference="FILE"), title="how images are compared")
    return f"Of a run:\n\n{run}\n\nOf images made anywhere:\n\n{images}"


def _compare(arguments: Arguments) -> None:
    arguments.nothing_left()
    from repae.commands.compare import compare_runs

    say(str(compare_runs(*arguments.positional)))


def _report(arguments: Arguments) -> None:
    folder = Path(arguments.only(_RUN))
    arguments.nothing_left()
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
        "RUN | --images PATH --reference PATH [--FIELD VALUE ...]",
        "measure a run, or images against a reference",
        _evaluate,
        more=_EVALUATE_MORE,
        fields=_evaluate_fields,
    ),
    "compare": Command(
        "RUN RUN ...",
        "figures of runs side by side, and whether they may be compared",
        _compare,
        more="A run is a folder with evaluation.json, or a JSON file that `repae evaluate` wrote.",
    ),
    "report": Command("RUN", "write report.html of a run again, from its files", _report),
}
