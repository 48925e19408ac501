"""`report.html`: one file that shows a run to somebody who was not there."""

from __future__ import annotations

from pathlib import Path

from repae.config import write_atomic
from repae.report import sections
from repae.report.notes import notes
from repae.report.page import page
from repae.report.run_files import read_run


def build(run_dir: str | Path) -> Path:
    """Write `report.html` into a run's folder, from the files that lie there, and give its path.

    The page loads nothing: pictures and style are inside. It can be built at any time, during a training too; what is
    not there yet is said in words.
    """
    run = read_run(Path(run_dir))
    parts = [
        sections.header(run),
        sections.results(run),
        sections.samples(run),
        sections.over_time(run),
        sections.reconstructions(run),
        sections.gallery(run),
        sections.latents(run),
        sections.curves(run),
        sections.teacher(run),
        notes(run),
        sections.what_was_run(run),
    ]
    path = run.folder / "report.html"
    write_atomic(path, page(str(run.of_recipe("name") or run.folder.name), parts))
    return path
