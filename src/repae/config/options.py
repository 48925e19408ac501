"""Any field of a configuration as a command-line option: its text read by the field's type, and listed for people."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import pydantic
import yaml

from repae.config import Config, UserError
from repae.config.annotations import below, describe, kinds, literals, members
from repae.config.registry import annotation_of

ConfigT = TypeVar("ConfigT", bound=Config)

_COLUMN = 50


def read_options(model_cls: type[Config], texts: Mapping[str, str | None]) -> dict[str, Any]:
    """The changes, for ``Config.replace``, that options such as ``--path.kind cosine`` ask for.

    A text counts as it stands where the field's type takes it so; else as YAML (``[0.9, 0.99]``, ``{kind: cosine}``);
    else, for a list, as its items with commas between. ``none`` empties a field that may be empty. What no reading
    makes valid, a name that is no field included, is left for ``replace`` to refuse in words.

    ``texts`` are by dotted field name, with ``-`` or ``_``; None is an option without a value: true.

    Raises:
        UserError: the same field is given twice, or a field that is no yes or no without a value.
    """
    changes: dict[str, Any] = {}
    for option, text in texts.items():
        name = option.replace("-", "_")
        if name in changes:
            raise UserError(f"--{option} is given twice; give it once")
        types: list[Any] = [model_cls]
        for key in name.split("."):
            types = [inner for expected in types for inner in below(expected, key)]
        if text is None and types and not any(bool in members(expected) for expected in types):
            raise UserError(f"--{option} needs a value: --{option} VALUE; allowed: {describe(types[0])}")
        changes[name] = _read("true" if text is None else text, types)
    return changes


def from_options(model_cls: type[ConfigT], texts: Mapping[str, str | None]) -> ConfigT:
    """The configuration that `read_options` makes of the default one."""
    return model_cls().replace(**read_options(model_cls, texts))


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


def list_options(config: Config, title: str = "the run", width: int = 120) -> str:
    """Every field of ``config`` as an option, with its value there, what is allowed and what it means.

    Fields that another ``kind`` would bring are not shown; the kinds are. ``title`` is what the whole is called.
    """
    lines: list[str] = []
    for prefix, part, choices in _parts(config, "", ()):
        about = _doc(type(part)).split("\n\n")[0].replace("\n", " ")
        lines += ["", *textwrap.wrap(f"{prefix[:-1] or title}: {about}", width)]
        notes = _notes(type(part))
        for name, field in type(part).model_fields.items():
            value = getattr(part, name)
            if isinstance(value, Config) or (value and _is_list_of_configs(value)):
                continue
            expected = annotation_of(field)
            typed = choices if name == "kind" and choices else literals(expected)  # what to type, hence no quotes
            allowed = " | ".join(map(str, typed)) or describe(expected)
            option = f"  --{prefix}{name.replace('_', '-')} {_value(value)}"
            meaning = "; ".join(text for text in (allowed, notes.get(name) or field.description) if text)
            lines += _columns(option, meaning, width)
    return "\n".join(lines[1:])


def _parts(config: Config, prefix: str, choices: Sequence[str]) -> Iterator[tuple[str, Config, Sequence[str]]]:
    """The configuration and all inside it, each with its dotted prefix and the kinds that could stand in its place."""
    yield prefix, config, choices
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        for key, part in enumerate(value) if isinstance(value, tuple) else [("", value)]:
            if isinstance(part, Config):
                own = f"{prefix}{name}." if key == "" else f"{prefix}{name}.{key}."
                yield from _parts(part, own, kinds(annotation_of(field)))


def _is_list_of_configs(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, Config) for item in value)


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
