"""Errors in words: every wrong value by its dotted name, as it was given, with what is allowed instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

from repae.config.registry import annotation_of

_BOUNDS = {
    "gt": "greater than {}",
    "ge": "at least {}",
    "lt": "less than {}",
    "le": "at most {}",
    "multiple_of": "a multiple of {}",
    "min_length": "of length at least {}",
    "max_length": "of length at most {}",
    "pattern": "of the form {}",
}
_WORDS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", NoneType: "none"}
_SHOWN_ERRORS = 4


class UserError(ValueError):
    """One clear line for the user: what is wrong, the value seen, what is allowed, what to do."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """`"; did you mean 'digits'?"` when one of the allowed names is close to `name`, else an empty text."""
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in allowed}
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), plain, n=1)
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


def fields(model_cls: type[pydantic.BaseModel]) -> list[str]:
    """Dotted names of all fields, those of nested configurations and of every member of a union included, once each."""
    return list(dict.fromkeys(_fields(model_cls, "")))


def _fields(model_cls: type[pydantic.BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model_cls.model_fields.items():
        yield prefix + name
        for member in _models(annotation_of(field)):
            yield from _fields(member, f"{prefix}{name}.")


def reword(error: pydantic.ValidationError, model_cls: type[pydantic.BaseModel], where: str) -> str:
    """Pydantic's errors as one line: where, and for each wrong field its dotted name, the value and what is allowed."""
    # The members of a plain union each report the same field: one line is enough.
    lines = list(dict.fromkeys(_line(item, model_cls) for item in error.errors(include_url=False)))
    more = f"; and {len(lines) - _SHOWN_ERRORS} more errors" if len(lines) > _SHOWN_ERRORS else ""
    return f"{where}: " + "; also: ".join(lines[:_SHOWN_ERRORS]) + more


def _line(item: Any, model_cls: type[pydantic.BaseModel]) -> str:
    name, expected, owner = _locate(model_cls, item["loc"])
    value = item["input"]
    if item["type"] == "extra_forbidden":
        return _unknown(name, value, owner, model_cls)
    if item["type"] == "missing":
        return f"{name} is missing; allowed: {_describe(expected)}"
    if item["type"] in ("value_error", "assertion_error"):
        text = str(item["ctx"]["error"])
        return f"{name}: {text}" if name else text
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        field = item["ctx"]["discriminator"].strip("'")
        kinds = _kinds(expected, field)
        if item["type"] == "union_tag_not_found":
            return f"{name} is {show(value)} and names no {field}; allowed: {field} = {', '.join(map(repr, kinds))}"
        name, value = f"{name}.{field}", item["ctx"]["tag"]
        return f"{name} is {show(value)}; allowed: {', '.join(map(repr, kinds))}{suggest(value, kinds)}"
    choices = [choice for choice in get_args(_bare(expected)) if isinstance(choice, str)]
    hint = suggest(value, choices) if isinstance(value, str) else ""
    return f"{name or 'the configuration'} is {show(value)}; allowed: {_describe(expected)}{hint}"


def _unknown(name: str, value: Any, owner: type[pydantic.BaseModel], root: type[pydantic.BaseModel]) -> str:
    group, _, leaf = name.rpartition(".")
    namesakes = [full for full in fields(root) if full.rpartition(".")[2] == leaf.replace("-", "_")]
    if ".".join(part for part in name.split(".") if not part.isdecimal()) in namesakes:
        return f"{name} (given as {show(value)}) belongs to another kind of {group}; set {group}.kind too"
    hint = suggest(leaf, owner.model_fields)
    if not hint and namesakes:
        hint = f"; did you mean {namesakes[0]!r}?"
    place = f" of {group}" if group else ""
    return f"{name} (given as {show(value)}) is not a field{place}" + (
        hint or f"; allowed: {', '.join(owner.model_fields)}"
    )


def _locate(model_cls: type[pydantic.BaseModel], loc: tuple[int | str, ...]) -> tuple[str, Any, Any]:
    """Dotted name, expected type and innermost configuration class of pydantic's location, its type tags left out."""
    names: list[str] = []
    here: Any = model_cls
    owner: Any = model_cls
    for item in loc:
        bare = _bare(here)
        members = [member for member in get_args(bare) if member is not NoneType] if _is_union(bare) else []
        if len(members) == 1:
            bare, members = _bare(members[0]), []
        if members:
            chosen = [member for member in _models(bare) if item == member.__name__ or item in _tags(member)]
            here = chosen[0] if chosen else here
        elif _is_model(bare):
            owner, field = bare, bare.model_fields.get(str(item))
            names.append(str(item))
            here = annotation_of(field) if field else Any
        elif get_origin(bare) in (list, tuple, set, frozenset, dict, Sequence, Mapping):
            names.append(str(item))
            inner = [argument for argument in get_args(bare) if argument is not Ellipsis]
            here = (
                inner[item] if get_origin(bare) is tuple and isinstance(item, int) and item < len(inner) else inner[-1]
            )
    return ".".join(names), here, owner


def _describe(expected: Any, constraints: tuple[Any, ...] = ()) -> str:
    """A type in words, with its bounds."""
    if get_origin(expected) is Annotated:
        inner, *own = get_args(expected)
        return _describe(inner, (*own, *constraints))
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Literal:
        text = ", ".join(repr(choice) for choice in arguments)
    elif _is_union(expected):
        models = [member for member in arguments if _is_model(_bare(member))]
        kinds = _kinds(expected, "kind")
        others = [_describe(member) for member in arguments if not kinds or member not in models]
        text = " or ".join(([f"kind = {', '.join(map(repr, kinds))}"] if kinds else []) + others)
    elif _is_model(expected):
        text = f"the fields {', '.join(expected.model_fields)}"
    elif origin is tuple and Ellipsis not in arguments:
        text = f"a list of {len(arguments)}: " + ", ".join(_describe(argument) for argument in arguments)
    elif origin in (dict, Mapping):
        text = "a mapping of names to values"
    elif origin is not None and arguments:
        text = f"a list, each item {_describe(arguments[0])}"
    else:
        text = _WORDS.get(expected) or ("a path" if expected is Path else getattr(expected, "__name__", str(expected)))
    bounds = " and ".join(_bounds(constraints))
    return f"{text}, {bounds}" if bounds else text


def _bounds(constraints: Iterable[Any]) -> Iterator[str]:
    for constraint in constraints:
        if isinstance(constraint, FieldInfo):
            yield from _bounds(constraint.metadata)
            continue
        for attribute, words in _BOUNDS.items():
            if (bound := getattr(constraint, attribute, None)) is not None:
                yield words.format(bound)


def _bare(expected: Any) -> Any:
    return _bare(get_args(expected)[0]) if get_origin(expected) is Annotated else expected


def _is_union(expected: Any) -> bool:
    return get_origin(expected) in (Union, UnionType)


def _is_model(expected: Any) -> bool:
    return isinstance(expected, type) and issubclass(expected, pydantic.BaseModel)


def _models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The configuration classes inside an annotation."""
    if _is_model(annotation):
        yield annotation
    else:
        for argument in get_args(annotation):
            yield from _models(argument)


def _tags(model_cls: type[pydantic.BaseModel]) -> list[Any]:
    return [tag for field in model_cls.model_fields.values() for tag in _literals(field)]


def _kinds(expected: Any, discriminator: str) -> list[str]:
    members = [model.model_fields.get(discriminator) for model in _models(expected)]
    return [str(tag) for field in members if field for tag in _literals(field)]


def _literals(field: FieldInfo) -> tuple[Any, ...]:
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def show(value: object) -> str:
    """A value as it is quoted in an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
