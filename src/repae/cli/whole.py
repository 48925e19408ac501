"""Whole comparisons in one command: `repae demo`, `repae miniature`, `repae two-stage`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.words import Command, Words, say


def _demo(words: Words) -> None:
    words.at_most(0)
    runs = Path(words.take("runs") or "runs")
    words.nothing_left("runs")
    from repae.recipes.outcome import demo

    say(f"done: {demo(runs) / 'report.html'}")


def _miniature(words: Words) -> None:
    words.at_most(0)
    runs, out = Path(words.take("runs") or "runs"), words.take("out")
    from repae.recipes.miniature import MiniatureConfig, miniature
    from repae.recipes.options import read_options

    config = MiniatureConfig().replace(**read_options(MiniatureConfig, words.options))
    say(f"done: {miniature(config, runs, Path(out) if out else None)}")


def _two_stage(words: Words) -> None:
    words.at_most(0)
    runs, out = Path(words.take("runs") or "runs"), words.take("out")
    from repae.recipes.options import read_options
    from repae.recipes.two_stage import TwoStageConfig, two_stage

    config = TwoStageConfig().replace(**read_options(TwoStageConfig, words.options))
    say(f"done: {two_stage(config, runs, Path(out) if out else None)}")


COMMANDS = {
    "demo": Command("[--runs FOLDER]", "train, sample and evaluate on bundled images, and write a report", _demo),
    "miniature": Command(
        "[--runs FOLDER]", "the paper in miniature: five methods, three seeds each, one table", _miniature
    ),
    "two-stage": Command(
        "[--runs FOLDER]", "tune jointly, cache latents, train a fresh SiT on the frozen VAE; one table", _two_stage
    ),
}
