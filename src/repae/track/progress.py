"""What a person sees while a run trains: a bar in a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from typing_extensions import override

from repae.track.base import Tracker

SHOWN = {
    "denoising_loss": "denoise",
    "proj_loss": "align",
    "vae_align_loss": "VAE align",
    "reconstruction_loss": "recon",
    "d_loss": "D",
}
"""The losses that tell how a run is going, in this order, with the short names under which they are shown."""

FIRST_OTHERS = 3


class ProgressBar(Tracker):
    """Steps done, images per second, the losses that matter and the time that is left.

    Args:
        show: keys of the losses to show, with their short names; of a row without any, its first few keys. One that
            is 0 is switched off and not shown.
        console: where to; standard error by default, so that standard output stays clean.
        every: seconds between two lines when the console is no terminal. The last step always gets a line.
    """

    def __init__(
        self,
        total: int,
        title: str = "train",
        show: Mapping[str, str] = SHOWN,
        console: Console | None = None,
        every: float = 5.0,
    ) -> None:
        self.total, self.title, self.show, self.every = total, title, show, every
        self.console = console or Console(stderr=True, soft_wrap=True)
        self._start = 0
        self._last_line = -float("inf")
        self._bar: Progress | None = None
        self._task = TaskID(0)

    @override
    def log(self, step: int, row: Mapping[str, float], wall: Mapping[str, float] | None = None) -> None:
        wall = wall or {}
        words = [f"{wall['images_per_second']:.0f} images/s"] if "images_per_second" in wall else []
        words += [f"{name} {row[key]:.3g}" for key, name in self._chosen(row)]
        done = step - self._start
        if "seconds" in wall and done > 0 and step < self.total:
            words.append(f"{duration(wall['seconds'] / done * (self.total - step))} left")
        text = "  ".join(words)
        if self.console.is_terminal:
            self._open().update(self._task, completed=step, text=text)
        elif step >= self.total or time.monotonic() - self._last_line >= self.every:
            self._last_line = time.monotonic()
            self.console.print(f"{self.title} {step}/{self.total}  {text}", highlight=False, markup=False)

    @override
    def resume(self, step: int) -> None:
        self._start = step
        if self.console.is_terminal:
            self._open().update(self._task, completed=step)

    @override
    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _chosen(self, row: Mapping[str, float]) -> Sequence[tuple[str, str]]:
        known = [(key, name) for key, name in self.show.items() if row.get(key)]
        return known or [(key, key) for key in row if key != "epoch"][:FIRST_OTHERS]

    def _open(self) -> Progress:
        if self._bar is None:
            columns = ("[bold]{task.description}", "{task.completed:.0f}/{task.total:.0f}", "{task.fields[text]}")
            title, count, text = (TextColumn(column) for column in columns)
            self._bar = Progress(title, BarColumn(bar_width=24), count, text, console=self.console)
            self._task = self._bar.add_task(self.title, total=self.total, completed=self._start, text="")
            self._bar.start()
        return self._bar


def duration(seconds: float) -> str:
    """A length of time for people: `42 s`, `3 min 05 s`, `2 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
