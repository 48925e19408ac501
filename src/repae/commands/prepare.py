"""Images at a path or URL, cropped once and written as shards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from repae.config.options import from_options
from repae.preparation.images import PrepareConfig, prepare
from repae.preparation.summary import PreparedImages
from repae.recipes.sources import DATA, image_source


def prepare_source(
    source: str, out: Path, options: Mapping[str, str | None], report: Callable[[str], None]
) -> PreparedImages:
    """Prepares what lies at ``source``; options ``--data.FIELD`` say how to read it, the others how to write it.

    Raises:
        UserError: nothing to prepare there, a folder that was begun with other settings, an unknown option.
    """
    own = {name: text for name, text in options.items() if not name.startswith(DATA)}
    config = from_options(PrepareConfig, own)
    return prepare(image_source(source, options, {"resolution": config.resolution}), out.expanduser(), config, report)
