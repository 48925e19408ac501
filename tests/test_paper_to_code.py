"""docs/paper-to-code.md tells the truth: every target exists."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from functools import cache
from pathlib import Path

import pytest

from repae.config import fields

PAGE = Path(__file__).parents[1] / "docs" / "paper-to-code.md"
REFUSED = "Not built, and why"


def _rows() -> dict[str, list[list[str]]]:
    """The cells of every table row, by the heading above it."""
    sections: dict[str, list[list[str]]] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            sections[line[3:]] = []
        elif line.startswith("| ") and sections:
            next(reversed(sections.values())).append([cell.strip() for cell in line.strip("|").split(" | ")])
    return {heading: rows[1:] for heading, rows in sections.items()}


def _quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _imported(target: str) -> bool:
    module, _, names = target.partition(":")
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError:
        return False
    for name in names.split("."):
        # A field of a configuration or a data class without a default is no attribute of the class.
        if not hasattr(found, name):
            return False
        found = getattr(found, name)
    return True


@cache
def _help(command: str) -> str:
    from repae.cli import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([command, "--help"]) == 0
    return out.getvalue()


def _resolves(target: str) -> bool:
    kind, _, name = target.partition(": ")
    if kind == "recipe":
        from repae.recipes.recipe import Recipe

        return name in fields(Recipe)
    if kind == "named":
        from repae.recipes.catalogue import catalogue

        return name in catalogue()
    if kind == "command":
        command, *options = name.split()
        return all(re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", _help(command)) for option in options)
    assert target.startswith("repae.") and ":" in target, f"{target!r} is no target"
    return _imported(target)


SECTIONS = _rows()
TARGETS = sorted(
    {target for heading, rows in SECTIONS.items() if heading != REFUSED for row in rows for target in _quoted(row[1])}
)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_exists(target: str) -> None:
    """A name moved or removed must be moved or removed on the page as well."""
    assert _resolves(target)


def test_every_row_has_a_target() -> None:
    """No name is listed without a place."""
    for heading, rows in SECTIONS.items():
        for row in rows:
            assert len(row) == (2 if heading == REFUSED else 3), row
            assert heading == REFUSED or _quoted(row[1]), row
