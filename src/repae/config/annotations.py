"""What a type allows: the one walk over the annotations of configurations, for options and for errors alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeGuard, Union, get_args, get_origin

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
_PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
    NoneType: "none",
    Path: "a path",
}
_LISTS = (list, tuple, set, frozenset, Sequence)
_MAPPINGS = (dict, Mapping)


def fields(model_cls: type[pydantic.BaseModel]) -> list[str]:
    """Dotted names of all fields, those of nested configurations and of every member of a union included, once each."""
    return list(dict.fromkeys(_fields(model_cls, "")))


def _fields(model_cls: type[pydantic.BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model_cls.model_fields.items():
        yield prefix + name
        for member in models(annotation_of(field)):
            yield from _fields(member, f"{prefix}{name}.")


def members(expected: Any) -> list[Any]:
    """The members of a union, None left out and their own marks kept; of any other type itself."""
    bare = _bare(expected)
    if not _is_union(bare):
        return [bare]
    return [member for argument in get_args(bare) if argument is not NoneType for member in members(argument)]


def models(expected: Any) -> Iterator[type[pydantic.BaseModel]]:
    """The configuration classes inside a type, items of lists included."""
    if is_model(expected):
        yield expected
    else:
        for argument in get_args(expected):
            yield from models(argument)


def kinds(expected: Any, discriminator: str = "kind") -> list[str]:
    """What the discriminator of the configurations inside a type may be."""
    found = [model.model_fields.get(discriminator) for model in models(expected)]
    return [str(tag) for field in found if field for tag in literals(field.annotation)]


def tags(expected: Any) -> set[Any]:
    """By what pydantic calls a member of a union where it tells of an error: its class, or a literal field of it."""
    if not is_model(expected):
        return set()
    return {expected.__name__, *(tag for field in expected.model_fields.values() for tag in literals(field.annotation))}


def below(expected: Any, key: int | str) -> Iterator[Any]:
    """The types that the field or item `key` may have: several where members of a union share a field, or none."""
    for bare in members(expected):
        arguments = [argument for argument in get_args(bare) if argument is not Ellipsis]
        if is_model(bare):
            if field := bare.model_fields.get(str(key)):
                yield annotation_of(field)
        elif get_origin(bare) in _MAPPINGS:
            yield arguments[-1]
        elif get_origin(bare) in _LISTS and str(key).isdecimal():
            yield arguments[min(int(key), len(arguments) - 1)]  # a list has one type for all positions


def describe(expected: Any, constraints: tuple[Any, ...] = ()) -> str:
    if get_origin(expected) is Annotated:
        inner, *own = get_args(expected)
        return describe(inner, (*own, *constraints))
    origin, arguments = get_origin(expected), get_args(expected)
    if origin is Literal:
        text = ", ".join(repr(choice) for choice in arguments)
    elif _is_union(expected):
        choices = kinds(expected)
        others = [describe(argument) for argument in arguments if not (choices and is_model(_bare(argument)))]
        text = " or ".join(([f"kind = {', '.join(map(repr, choices))}"] if choices else []) + others)
    elif is_model(expected):
        text = f"the fields {', '.join(expected.model_fields)}"
    elif origin is tuple and Ellipsis not in arguments:
        text = f"a list of {len(arguments)}: " + ", ".join(describe(argument) for argument in arguments)
    elif origin in _MAPPINGS:
        text = "a mapping of names to values"
    elif arguments:
        text = f"a list, each item {describe(arguments[0])}"
    else:
        text = _PLAIN.get(expected) or getattr(expected, "__name__", str(expected))
    bounds = " and ".join(_bounds(constraints))
    return f"{text}, {bounds}" if bounds else text


def is_container(expected: Any) -> bool:
    """Whether a value of this type, which is no union, has fields or items."""
    return is_model(expected) or get_origin(expected) in (*_LISTS, *_MAPPINGS)


def is_model(expected: Any) -> TypeGuard[type[pydantic.BaseModel]]:
    return isinstance(expected, type) and issubclass(expected, pydantic.BaseModel)


def literals(expected: Any) -> tuple[Any, ...]:
    """The values of a literal type; of any other none."""
    return get_args(_bare(expected)) if get_origin(_bare(expected)) is Literal else ()


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
