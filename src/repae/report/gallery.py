"""The gallery: what `repae evaluate` has drawn, each picture with the words that lie beside it."""

from __future__ import annotations

from html import escape
from pathlib import PurePath
from typing import Any

from repae.report.page import missing, picture, section
from repae.report.run_files import RunFiles

FOLDER = "gallery"


def gallery(run: RunFiles) -> str:
    """Every picture that `samples/gallery/gallery.json` lists, and what could not be drawn; nothing for a VAE alone."""
    title = "Gallery"
    if not run.generates:
        return ""
    if run.gallery is None:
        return section("gallery", title, missing("No gallery was drawn (samples/gallery): `repae evaluate` draws it."))
    listed = run.gallery.get("pictures")
    parts = [_picture(run, entry) for entry in (listed if isinstance(listed, list) else []) if isinstance(entry, dict)]
    parts += [missing(str(note)) for note in run.gallery.get("notes", [])]
    return section("gallery", title, f"<div class='gallery'>{''.join(parts)}</div>")


def _picture(run: RunFiles, entry: dict[str, Any]) -> str:
    title, file = str(entry.get("title", "")), PurePath(str(entry.get("file", ""))).name
    path = run.picture(f"{FOLDER}/{file}")
    if path is None:
        return missing(f"{title}: samples/{FOLDER}/{file} is gone.")
    return f"<h3>{escape(title)}</h3>{picture(path, str(entry.get('caption', '')))}"
