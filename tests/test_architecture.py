"""The picture of the floors is the contract that the checker enforces, and every room of the package is in it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]


def _picture() -> list[set[str]]:
    """Rooms of each floor in docs/architecture.md, from the top."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = text.split("```")[1]
    lines = [re.match(r"(\d)  (\S+(?: \| \S+)*)", line) for line in block.strip().splitlines()]
    assert [int(line[1]) for line in lines] == list(range(len(lines)))[::-1]
    return [set(line[2].split(" | ")) for line in lines]


def test_the_picture_is_what_is_enforced() -> None:
    """Floors in docs/architecture.md and layers in pyproject.toml are the same, in the same order."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (floors,) = [contract for contract in settings["contracts"] if contract["type"] == "layers"]
    assert [set(layer.split(" | ")) for layer in floors["layers"]] == _picture()


def test_every_room_is_in_the_picture() -> None:
    """No module of the package stands outside the floors, and only rooms in brackets are missing."""
    package = ROOT / "src" / "repae"
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    files = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    rooms = set().union(*_picture())
    planned = {room for room in rooms if room.startswith("(")}
    assert folders | files == rooms - planned
