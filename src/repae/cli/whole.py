"""The whole way in one command: `repae demo`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.words import Command, Words, say


def _demo(words: Words) -> None:
    words.at_most(0)
    runs = Path(words.take("runs") or "runs")
    words.nothing_left("runs")
    from repae.commands.demo import demo

    say(f"done: {demo(runs) / 'report.html'}")


COMMANDS = {
    "demo": Command("[--runs FOLDER]", "train, sample and evaluate on bundled images, and write a report", _demo),
}
