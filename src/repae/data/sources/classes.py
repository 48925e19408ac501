"""Classes as somebody wrote them down, numbers or names, and the labels 0 to n-1 that training counts by.

The rule, for tables, shards and hub data sets alike:

- Nothing, an empty text and NaN mean that an image has no class: it is left out, with a note.
- Where every class is a whole number, also as `3.0` or `"3"`, the names of the classes are the numbers, in the order of
  their size. Numbers that are not 0 to n-1 become so, with a note.
- Where one is not, all are names, sorted.
- Negative numbers, fractions, yes or no, and lists are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from repae.config import UserError
from repae.config.files import readable
from repae.data.sources.names import count

WHOLE = re.compile(r"-?(?:0|[1-9]\d*)(?:\.0+)?")
FRACTION = re.compile(r"-?\d+\.\d+(?:[eE][-+]?\d+)?")
MISSING = -1
"""Stands for the label of an image without a class."""


class Classes(NamedTuple):
    """Class names, a label for each image (`MISSING` where it has none), and what a person should be told."""

    names: tuple[str, ...]
    labels: Int64[np.ndarray, " n"]
    notes: tuple[str, ...]


def classify(values: Iterable[Any], name: Callable[[int], str], where: str) -> Classes:
    """Labels from classes as they were written, by the rule of this module.

    Args:
        values: what stands for the class of each image.
        name: the name of an image, by its place among the values; for errors.
        where: what the classes were read from; for errors and notes.
    """
    codes: list[int] = []
    seen: dict[Hashable, int] = {}
    meant: list[int | float | str | None] = []
    for place, value in enumerate(values):
        # With its class, since 1, 1.0 and True are one key of a dict.
        key = (value.__class__, value) if isinstance(value, Hashable) else None
        code = seen.get(key, -1)
        if code < 0:
            code = seen[key] = len(meant)
            try:
                meant.append(_meaning(value))
            except ValueError as error:
                raise UserError(f"{where}: the class of '{readable(name(place))}' is {error}") from None
        codes.append(code)
    given = {value for value in meant if value is not None}
    if not given:
        raise UserError(
            f"{where} gives no image a class; write one for each, or train without classes: --data.labels none"
        )
    order = _in_order(given, meant, codes, name, where)
    label = {None: MISSING} | {value: number for number, value in enumerate(order)}
    names = tuple(readable(str(value)) for value in order)
    labels = np.array([label[_text(value, order)] for value in meant], dtype=np.int64)[np.array(codes, dtype=np.int64)]
    return Classes(names, labels, _notes(order, labels, where))


def read_class_names(path: str, classes: Classes, where: str) -> Classes:
    """The same classes with names from a file of one name a line, the first of which belongs to number 0."""
    try:
        names = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"class names in '{readable(path)}' cannot be read: {error}; give a text file") from None
    names = [line.strip() for line in names if line.strip()]
    numbers = [int(name) if name.isdecimal() else -1 for name in classes.names]
    if min(numbers) < 0 or max(numbers) >= len(names):
        wrong = next(name for name, number in zip(classes.names, numbers) if not 0 <= number < len(names))
        raise UserError(
            f"'{readable(path)}' names the classes 0 to {len(names) - 1}, but {where} has a class {wrong!r}; give a "
            "file with one line for each number, or leave it out"
        )
    labels = np.where(classes.labels == MISSING, MISSING, np.array(numbers)[classes.labels])
    missing = tuple(note for note in classes.notes if "without a class" in note)
    return Classes(tuple(names), labels, missing)


def _meaning(value: Any) -> int | float | str | None:
    """A class as it was meant: a number, a name, or None for nothing. The error continues "the class of 'x' is"."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        text = value.strip()
        if WHOLE.fullmatch(text):
            return int(float(text)) if "." in text else int(text)
        return float(text) if FRACTION.fullmatch(text) else text or None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{value!r}; a class is a whole number or a name, one for each image")
    return value if isinstance(value, float) and not value.is_integer() else int(value)


def _in_order(
    given: set[Any], meant: list[Any], codes: list[int], name: Callable[[int], str], where: str
) -> list[int] | list[str]:
    if any(isinstance(value, str) for value in given):
        return sorted({str(value) for value in given})
    wrong = {value for value in given if isinstance(value, float) or value < 0}
    if wrong:
        place = next(place for place, code in enumerate(codes) if meant[code] in wrong)
        raise UserError(
            f"{where}: the class of '{readable(name(place))}' is {meant[codes[place]]}; a class is a whole number from "
            "0 on or a name; leave it empty (null) for an image without a class"
        )
    return sorted(given)


def _text(value: Any, order: list[Any]) -> Any:
    return str(value) if value is not None and isinstance(order[0], str) else value


def _notes(order: list[Any], labels: Int64[np.ndarray, " n"], where: str) -> tuple[str, ...]:
    notes = []
    if missing := int((labels == MISSING).sum()):
        notes.append(f"{count(missing, 'image')} without a class in {where} left out")
    if not isinstance(order[0], str) and order != list(range(len(order))):
        shown = ", ".join(map(str, order[:4])) + (f", ... {order[-1]}" if len(order) > 4 else "")
        notes.append(
            f"the classes in {where} are the numbers {shown}; as labels they count 0 to {len(order) - 1}, in this order"
        )
    return tuple(notes)
