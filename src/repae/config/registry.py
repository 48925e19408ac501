"""Configurations of one family, told apart by their `kind` and registered each in its own file.

A union that is written down, `Annotated[A | B, Field(discriminator="kind")]`, closes the family where it stands. With a
`Registry` in its place, `Annotated[Base, REGISTRY]`, a field takes whatever is registered when a value is read, also
what a later file adds.
"""

from __future__ import annotations

from functools import cache
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import pydantic
from pydantic.fields import FieldInfo

MemberT = TypeVar("MemberT", bound=type[pydantic.BaseModel])


class Registry:
    """The configurations that a field annotated with it may hold.

    Attributes:
        noun: what a member is, for errors.
        members: the classes by their kind, in the order in which they were registered.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.members: dict[str, type[pydantic.BaseModel]] = {}

    def register(self, member: MemberT) -> MemberT:
        """Adds a configuration class, whose field `kind` is a literal with a default; usable as a decorator.

        Raises:
            ValueError: it has no such field, or another class is registered for its kind.
        """
        field = member.model_fields.get("kind")
        if field is None or get_origin(field.annotation) is not Literal or field.is_required():
            raise ValueError(f"{member.__name__} is no {self.noun}: it has no literal field 'kind' with a default")
        if field.default in self.members:
            other = self.members[field.default].__name__
            raise ValueError(f"{self.noun} {field.default!r} is registered already, as {other}; give another kind")
        self.members[field.default] = member
        return member

    @property
    def annotation(self) -> Any:
        """The discriminated union of the members, as pydantic reads it."""
        return _union(tuple(self.members.values()))

    def __get_pydantic_core_schema__(self, source: Any, handler: pydantic.GetCoreSchemaHandler) -> Any:
        # A function, and not the union: the schema of a class is made once, and members may be registered later. The
        # union's own error passes through it as it is; pydantic puts the field's name before its places. What is read
        # counts as anything, so that it is written with all of its fields and not with those of ``source``.
        return pydantic.BeforeValidator(self._read).__get_pydantic_core_schema__(Any, handler)

    def _read(self, value: Any) -> pydantic.BaseModel:
        return _adapter(self.annotation).validate_python(value)


def annotation_of(field: FieldInfo) -> Any:
    """A field's type with its bounds, and with a union in the place of every registry: what a walk over types reads."""
    # Subscribed by a tuple, since the number of constraints is not known beforehand.
    whole = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation  # pyright: ignore
    return _unfolded(whole)


def _unfolded(annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        registries = [mark for mark in arguments[1:] if isinstance(mark, Registry)]
        return registries[0].annotation if registries else Annotated[(_unfolded(arguments[0]), *arguments[1:])]  # pyright: ignore
    if origin in (Union, UnionType):
        return Union[tuple(map(_unfolded, arguments))]  # noqa: UP007 (of as many as there are)
    if origin in (tuple, list, dict):
        return GenericAlias(origin, tuple(map(_unfolded, arguments)))
    return annotation


@cache
def _union(members: tuple[type[pydantic.BaseModel], ...]) -> Any:
    union: Any = Union[members]  # pyright: ignore  # noqa: UP007
    # A discriminator needs a choice.
    return Annotated[union, pydantic.Field(discriminator="kind")] if len(members) > 1 else union


@cache
def _adapter(annotation: Any) -> Any:  # a TypeAdapter, which is no class to beartype
    return pydantic.TypeAdapter(annotation)
