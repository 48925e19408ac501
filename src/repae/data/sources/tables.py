"""Classes in a table beside the images: `dataset.json` as StyleGAN, EDM and the reference write it, or CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from repae.config import UserError
from repae.config.files import readable
from repae.data.image_source import BrokenImageError
from repae.data.sources.classes import MISSING, classify
from repae.data.sources.names import SUFFIXES, count, hidden, join, suffix
from repae.data.sources.storage import LabelledFiles, Storage

JSON, TABLES = "dataset.json", ("dataset.json", "labels.csv", "labels.tsv", "metadata.csv")
NAME_COLUMNS = ("file_name", "filename", "file", "name", "image", "path")
CLASS_COLUMNS = ("label", "class", "category", "target")
FORMS = (
    'allowed: dataset.json as {"labels": [["cat/1.png", 0], ...]}, or CSV with a column for the file '
    f"({', '.join(NAME_COLUMNS)}) and one for the class ({', '.join(CLASS_COLUMNS)}), or with just these two columns"
)


class Table(NamedTuple):
    """A table as text: what it is called, the folder that its names count from (with `/` at its end), its content."""

    name: str
    folder: str
    content: bytes


def find_table(storage: Storage, given: str | None = None) -> Table | None:
    """The table of a storage: the one that is given, by its name inside or as a file elsewhere; else one that is called
    as tables are, at the top or in the one folder that is there; else the only CSV file at the top.
    """
    if given is not None:
        return _given(storage, given)
    candidates = {
        name: position
        for position, name in enumerate(storage.names)
        if name.count("/") < 2 and suffix(name) in (".json", ".csv", ".tsv") and not hidden(name)
    }
    for wanted in TABLES:
        found = [name for name in candidates if name.rpartition("/")[2] == wanted]
        if wanted in found:
            return _read(storage, wanted, candidates[wanted])
        if len(found) == 1 and storage.noun != "folder":
            return _read(storage, found[0], candidates[found[0]])
    sheets = [name for name in candidates if "/" not in name and suffix(name) in (".csv", ".tsv")]
    if len(sheets) > 1:
        raise UserError(
            f"data {storage.noun} '{storage.where}' holds {join(sheets)}; say which has the classes: --data.table NAME"
        )
    return _read(storage, sheets[0], candidates[sheets[0]]) if sheets else None


def by_table(storage: Storage, table: Table) -> LabelledFiles:
    """The images that a table lists, sorted by name, with the classes it gives them (`repae.data.sources.classes`).

    Left out, with a note: images listed without a class, listed but not there, there but not listed. The same line
    twice counts once.
    """
    where = f"'{storage.where}/{readable(table.name)}'"
    rows = _rows_of_json if suffix(table.name) == ".json" else _rows_of_csv
    wanted, repeated = _by_name(rows(table.content, where), where)
    present: list[tuple[str, int]] = []
    unlisted = 0
    for position, name in enumerate(storage.names):
        if not name.startswith(table.folder):
            continue
        short = name[len(table.folder) :]
        if short in wanted:
            present.append((short, position))
        elif suffix(name) in SUFFIXES and not hidden(name):
            unlisted += 1
    if not present:
        example = readable(next(iter(wanted))) if wanted else ""
        what = f"none of the {count(len(wanted), 'file')} that {where} lists is there, such as '{example}'"
        what = what if wanted else f"{where} lists no images"
        raise UserError(f"{what}; names in it count from the folder that it is in; {FORMS}")
    present.sort()
    classes = classify([wanted[name] for name, _ in present], lambda place: present[place][0], where)
    kept = classes.labels != MISSING
    notes = _left_out(wanted, [name for name, _ in present], unlisted, repeated, where)
    positions = np.array([position for _, position in present], dtype=np.int64)
    return LabelledFiles(positions[kept], classes.names, classes.labels[kept], (*classes.notes, *notes))


def _left_out(wanted: dict[str, Any], present: list[str], unlisted: int, repeated: int, where: str) -> Iterator[str]:
    absent = wanted.keys() - present
    if absent:
        what = f"{count(len(absent), 'image')} listed in {where} but not there"
        yield f"{what}, such as '{readable(min(absent))}'"
    if unlisted:
        yield f"{count(unlisted, 'image')} not listed in {where} left out"
    if repeated:
        yield f"{count(repeated, 'line')} of {where} repeated, counted once"


def _given(storage: Storage, given: str) -> Table:
    for position, name in enumerate(storage.names):
        if name == given:
            return _read(storage, name, position)
    path = Path(given).expanduser()
    try:
        return Table(path.name, "", path.read_bytes())
    except OSError as error:
        raise UserError(
            f"table '{readable(given)}' is neither in '{storage.where}' nor a file that can be read: {error.strerror}; "
            f"correct --data.table; {FORMS}"
        ) from None


def _read(storage: Storage, name: str, position: int) -> Table:
    try:
        return Table(name, name[: name.rfind("/") + 1], storage.read(position))
    except (OSError, BrokenImageError) as error:
        raise UserError(f"table '{storage.where}/{readable(name)}' cannot be read: {error}; repair it") from None


def _by_name(rows: Iterable[tuple[str, Any]], where: str) -> tuple[dict[str, Any], int]:
    """Each image's class, and how many lines say again what another said."""
    wanted: dict[str, Any] = {}
    repeated = 0
    for name, value in rows:
        name = name.replace("\\", "/").removeprefix("./")
        if name in wanted:
            if wanted[name] != value:
                raise UserError(
                    f"{where} lists '{readable(name)}' twice, with the classes {wanted[name]!r} and {value!r}; an "
                    "image has one class: remove one of the lines"
                )
            repeated += 1
        wanted[name] = value
    return wanted, repeated


def _rows_of_json(content: bytes, where: str) -> list[tuple[str, Any]]:
    try:
        data = json.loads(content)
    except ValueError as error:
        raise UserError(f"{where} is no valid JSON: {error}; {FORMS}") from None
    listed = data.get("labels", ...) if isinstance(data, dict) else data
    if listed is None:
        raise UserError(f"{where} says that there are no labels; to train without classes: --data.labels none")
    if isinstance(listed, dict):
        listed = list(listed.items())
    if not isinstance(listed, list) or not all(
        isinstance(row, (list, tuple)) and len(row) == 2 and isinstance(row[0], str) for row in listed
    ):
        raise UserError(f"{where} holds no list of names with their classes; {FORMS}")
    return [(name, value) for name, value in listed]


def _rows_of_csv(content: bytes, where: str) -> list[tuple[str, Any]]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    first = text.partition("\n")[0]
    lines = csv.reader(io.StringIO(text), delimiter=max(",;\t", key=first.count))
    table = [line for line in lines if any(cell.strip() for cell in line)]
    header = [cell.strip().lower() for cell in table[0]] if table else []
    name, label = (next((header.index(c) for c in known if c in header), -1) for known in (NAME_COLUMNS, CLASS_COLUMNS))
    headed = name >= 0 and label >= 0
    if not headed and len(header) != 2:
        raise UserError(f"{where} has the columns {join(header, 8) or 'of an empty file'}; {FORMS}")
    name, label = (name, label) if headed else (0, 1)
    body = table[1:] if headed else table
    short = next((line for line in body if len(line) <= max(name, label)), None)
    if short is not None:
        raise UserError(
            f"{where} has a line with too few columns: {','.join(short)!r}; give each image a line; {FORMS}"
        )
    return [(line[name], line[label]) for line in body]
