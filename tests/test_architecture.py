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
PACKAGE = ROOT / "src" / "repae"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def _picture() -> list[set[str]]:
    """Rooms of each floor in docs/architecture.md, from the top."""
    block = PAGE.split("```")[1]
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
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    files = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "__main__"}
    rooms = set().union(*_picture())
    planned = {room for room in rooms if room.startswith("(")}
    assert folders | files == rooms - planned


def _rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading of the page."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]


def test_every_room_has_a_row_and_what_it_names_is_there() -> None:
    """A file that moved or was renamed takes its mention along."""
    rows = {room.strip("`"): text for room, text in _rows("The rooms")}
    assert rows.keys() == set().union(*_picture())
    for room, text in rows.items():
        for name in re.findall(r"`([a-z_0-9]+)`", text):
            assert (PACKAGE / room / name).is_dir() or (PACKAGE / room / f"{name}.py").is_file(), f"{room}: {name}"


def test_a_change_goes_where_something_is() -> None:
    """Every path in the table of changes exists."""
    paths = re.findall(r"`([a-z_]+/[\w/.]*)`", " ".join(place for _, place in _rows("Where a change goes")))
    assert len(paths) > 20
    for path in set(paths) - {"tests/"}:
        assert (PACKAGE / path).exists(), path
