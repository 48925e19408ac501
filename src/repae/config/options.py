"""Any field of a configuration as a command-line option: its text read by the field's type, and listed for people."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
import yaml
from pydantic.fields import FieldInfo

from repae.config import Config, UserError
from repae.config.registry import annotation_of

_BOUNDS = {"ge": ">= {}", "gt": "> {}", "le": "<= {}", "lt": "< {}", "multiple_of": "a multiple of {}"}
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}
_COLUMN = 50


def read_options(model_cls: type[Config], texts: Mapping[str, str | None]) -> dict[str, Any]:
    """The changes, for ``Config.replace``, that options such as ``--path.kind cosine`` ask for.

    A text counts as it stands where the field's type takes it so; else as YAML (``[0.9, 0.99]``, ``{kind: cosine}``);
    else, for a list, as its items with commas between. ``none`` empties a field that may be empty. What no reading
    makes valid, a name that is no field included, is left for ``replace`` to refuse in words.

    Args:
        model_cls: the configuration that will be changed.
        texts: dotted field name, with ``-`` or ``_``, to its text, or None for an option without a value: true.

    Raises:
        UserError: the same field is given twice, or a field that is no yes or no without a value.
    """
    changes: dict[str, Any] = {}
    for option, text in texts.items():
        name = option.replace("-", "_")
        if name in changes:
            raise UserError(f"--{option} is given twice; give it once")
        types = list(_types(model_cls, name.split(".")))
        if text is None and types and not any(_is_yes_or_no(expected) for expected in types):
            raise UserError(f"--{option} needs a value: --{option} VALUE; allowed: {_allowed(types[0])}")
        changes[name] = _read("true" if text is None else text, types)
    return changes


def _is_yes_or_no(expected: Any) -> bool:
    inner = get_args(expected) if get_origin(expected) in (Annotated, Union, UnionType) else ()
    return expected is bool or any(_is_yes_or_no(member) for member in inner)


def _read(text: str, types: Sequence[Any]) -> Any:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = text
    if isinstance(data, bool):  # which would count as the number 1
        data = text
    nothing = [None] if text.lower() in ("none", "null") else []
    for reading in (*nothing, text, data, [item.strip() for item in text.split(",")]):
        for taken in _taken(types, reading):
            # A text that stands for a list of parts becomes that list, so that fields of its items can be given too.
            return taken if isinstance(reading, str) and isinstance(taken, tuple) else reading
    return data


def _taken(types: Sequence[Any], value: Any) -> Iterator[Any]:
    """What each of the types that takes the value makes of it."""
    for expected in types:
        with suppress(pydantic.ValidationError, UserError):
            yield pydantic.TypeAdapter(expected).validate_python(value)


def _types(here: Any, path: Sequence[str]) -> Iterator[Any]:
    """The types that a dotted name may have: several where members of a union share a field."""
    if not path:
        yield here
    elif isinstance(here, type) and issubclass(here, pydantic.BaseModel):
        if field := here.model_fields.get(path[0]):
            yield from _types(annotation_of(field), path[1:])
    elif get_origin(here) is Annotated:
        yield from _types(get_args(here)[0], path)
    elif get_origin(here) in (Union, UnionType):
        for member in get_args(here):
            yield from _types(member, path)
    elif get_origin(here) in (tuple, list) and path[0].isdecimal():
        inner = [member for member in get_args(here) if member is not Ellipsis]
        yield from _types(inner[min(int(path[0]), len(inner) - 1)], path[1:])


def list_options(config: Config, title: str = "the run", width: int = 120) -> str:
    """Every field of ``config`` as an option, with its value there, what is allowed and what it means.

    Fields that another ``kind`` would bring are not shown; the kinds are. ``title`` is what the whole is called.
    """
    lines: list[str] = []
    for prefix, part, kinds in _parts(config, "", ()):
        about = _doc(type(part)).split("\n\n")[0].replace("\n", " ")
        lines += ["", *textwrap.wrap(f"{prefix[:-1] or title}: {about}", width)]
        notes = _notes(type(part))
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            if isinstance(value, Config) or (value and _is_list_of_configs(value)):
                continue
            allowed = " | ".join(kinds) if name == "kind" and kinds else _allowed(annotation_of(field))
            option = f"  --{prefix}{name.replace('_', '-')} {_value(value)}"
            meaning = "; ".join(text for text in (allowed, notes.get(name) or field.description) if text)
            lines += _columns(option, meaning, width)
    return "\n".join(lines[1:])


def _parts(config: Config, prefix: str, kinds: tuple[str, ...]) -> Iterator[tuple[str, Config, tuple[str, ...]]]:
    """The configuration and all inside it, each with its dotted prefix and the kinds that could stand in its place."""
    yield prefix, config, kinds
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for key, part in enumerate(value) if isinstance(value, tuple) else [("", value)]:
            if isinstance(part, Config):
                own = f"{prefix}{name}." if key == "" else f"{prefix}{name}.{key}."
                yield from _parts(part, own, tuple(_kinds(annotation_of(field))))


def _kinds(annotation: Any) -> Iterator[str]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        if kind := annotation.model_fields.get("kind"):
            yield from get_args(kind.annotation)
    else:
        for member in get_args(annotation):
            yield from _kinds(member)


def _is_list_of_configs(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, Config) for item in value)


def _allowed(expected: Any, constraints: Iterable[Any] = ()) -> str:
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Annotated:
        return _allowed(arguments[0], (*arguments[1:], *constraints))
    if origin in (Union, UnionType):
        inner = [_allowed(member, constraints) for member in arguments if member is not NoneType]
        return " or ".join(dict.fromkeys([*inner, *(["none"] if NoneType in arguments else [])]))
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin is dict:
        return "mapping"
    if origin in (tuple, list):
        return f"list of: {_allowed(arguments[0])}"
    kinds = list(_kinds(expected))
    if kinds:
        text = f"{{kind: {' | '.join(kinds)}, ...}}"
    elif isinstance(expected, type) and issubclass(expected, Config):
        text = f"{{{', '.join(expected.model_fields)}}}"
    else:
        text = _WORDS.get(expected, str(expected))
    bounds = " and ".join(_bounds(constraints))
    return f"{text} {bounds}".strip()


def _bounds(constraints: Iterable[Any]) -> Iterator[str]:
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            yield from _bounds(constraint.metadata)
        for attribute, words in _BOUNDS.items():
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield words.format(bound)


def _doc(model_cls: type[Any]) -> str:
    return (inspect.getdoc(model_cls) or "").replace("``", "").replace("`", "")


def _notes(model_cls: type[Config]) -> dict[str, str]:
    """What the docstrings of the class and of those above it say of each field in their sections "Attributes"."""
    notes = {}
    for above in reversed(model_cls.__mro__):
        section = _doc(above).partition("Attributes:\n")[2] if issubclass(above, Config) else ""
        found = re.findall(r"^    (\w+): (.*(?:\n {8,}.*)*)", section, flags=re.MULTILINE)
        notes |= {name: re.sub(r"\s+", " ", text) for name, text in found}
    return notes


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value) if value else "[]"
    text = str(value)
    return repr(textwrap.shorten(text, 32)) if not text or " " in text else text


def _columns(option: str, meaning: str, width: int) -> list[str]:
    rows = textwrap.wrap(meaning, width - _COLUMN) or [""]
    if len(option) >= _COLUMN:
        return [option, *(" " * _COLUMN + row for row in rows)]
    return [option.ljust(_COLUMN) + rows[0], *(" " * _COLUMN + row for row in rows[1:])]
