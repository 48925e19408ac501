"""Errors in words: every wrong value by its dotted name, as it was given, with what is allowed instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import pydantic

from repae.config.annotations import below, describe, fields, is_container, is_model, kinds, literals, members, tags

_SHOWN_ERRORS = 4


class UserError(ValueError):
    """One clear line for the user: what is wrong, the value seen, what is allowed, what to do."""


def suggest(name: str, allowed: Iterable[str]) -> str:
    """`"; did you mean 'digits'?"` when one of the allowed names is close to `name`, else an empty text."""
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in allowed}
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), plain, n=1)
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


def one_line(error: BaseException) -> str:
    """What an error of a library says, on one line of at most 300 characters, or its name where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else f"{text[:297]}..."


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
        return f"{name} is missing; allowed: {describe(expected)}"
    if item["type"] in ("value_error", "assertion_error"):
        text = str(item["ctx"]["error"])
        return f"{name}: {text}" if name else text
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        field = item["ctx"]["discriminator"].strip("'")
        choices = kinds(expected, field)
        if item["type"] == "union_tag_not_found":
            return f"{name} is {show(value)} and names no {field}; allowed: {field} = {', '.join(map(repr, choices))}"
        name, value = f"{name}.{field}", item["ctx"]["tag"]
        return f"{name} is {show(value)}; allowed: {', '.join(map(repr, choices))}{suggest(value, choices)}"
    choices = [choice for choice in literals(expected) if isinstance(choice, str)]
    hint = suggest(value, choices) if isinstance(value, str) else ""
    return f"{name or 'the configuration'} is {show(value)}; allowed: {describe(expected)}{hint}"


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
        choices = members(here)
        if len(choices) > 1:  # pydantic names the member that it has tried
            here = next((member for member in choices if item in tags(member)), here)
        elif is_container(choices[0]):
            owner = choices[0] if is_model(choices[0]) else owner
            names.append(str(item))
            here = next(below(choices[0], item), Any)
    return ".".join(names), here, owner


def show(value: object) -> str:
    """A value as it is quoted in an error, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
