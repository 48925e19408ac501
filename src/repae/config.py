"""The ground floor: configurations that refuse what they do not know, errors made for people, files written whole.

Imports no torch, so that the command line can answer before anything heavy is loaded.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import pydantic
import yaml
from pydantic.fields import FieldInfo
from typing_extensions import Self

__all__ = ["Config", "UserError", "check", "fields", "read_yaml", "suggest", "write_atomic"]

ConfigT = TypeVar("ConfigT", bound="Config")


class UserError(ValueError):
    """One clear line for the user: what is wrong, the value seen, what is allowed, what to do."""


if TYPE_CHECKING:
    _ConfigMeta = type(pydantic.BaseModel)
else:

    class _ConfigMeta(type(pydantic.BaseModel)):
        """Words the errors of a direct construction, `SiTConfig(depth=-1)`, as `check` words those of a file."""

        def __call__(cls, *args: Any, **data: Any) -> Any:
            try:
                return super().__call__(*args, **data)
            except pydantic.ValidationError as error:
                raise UserError(_reword(error, cls, cls.__name__)) from None


class Config(pydantic.BaseModel, metaclass=_ConfigMeta):
    """Base of every configuration: frozen, unknown fields refused, defaults validated, NaN and infinity refused.

    A choice between configurations is a union discriminated by a literal field `kind`.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )

    def replace(self, **changes: Any) -> Self:
        """A validated copy with some fields changed; `self` stays as it is.

        Names may be dotted, with list positions as numbers: `cfg.replace(**{"train.steps": 20, "teachers.0.kind": k})`.
        Where a change gives another `kind`, the fields of the former kind are dropped.

        Raises:
            UserError: for a name that does not exist (with a suggestion) or a value that is not allowed.
        """
        tree = self.model_dump()
        # A new kind comes before the fields that it allows.
        for name in sorted(changes, key=lambda name: (name.count("."), not name.endswith("kind"))):
            _put(tree, name.split("."), changes[name])
        return check(type(self), tree, type(self).__name__)

    def to_yaml(self) -> str:
        """The whole configuration as YAML, defaults included, in the order of definition."""
        return yaml.dump(self.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """The configuration in a YAML file; `UserError` naming the file and the field when it is not a valid one."""
        return check(cls, read_yaml(path), str(path))

    def digest(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the canonical JSON: equal configurations have equal digests."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def suggest(name: str, allowed: Iterable[str]) -> str:
    """`"; did you mean 'digits'?"` when one of the allowed names is close to `name`, else an empty text."""
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in allowed}
    close = difflib.get_close_matches(str(name).lower().replace("-", "_"), plain, n=1)
    return f"; did you mean {plain[close[0]]!r}?" if close else ""


def check(model_cls: type[ConfigT], data: Any, where: str) -> ConfigT:
    """Validate `data` as a `model_cls`.

    Args:
        model_cls: the configuration class.
        data: a mapping of field names to values (nested mappings and configurations alike).
        where: what the data is called in an error: a file, a command line, a recipe.

    Raises:
        UserError: one line that names each wrong field by its dotted path, the value seen and what is allowed.
    """
    try:
        return model_cls.model_validate(data)
    except pydantic.ValidationError as error:
        raise UserError(_reword(error, model_cls, where)) from None


def fields(model_cls: type[pydantic.BaseModel]) -> list[str]:
    """Dotted names of all fields, those of nested configurations and of every member of a union included, once each."""
    return list(dict.fromkeys(_fields(model_cls, "")))


def _fields(model_cls: type[pydantic.BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model_cls.model_fields.items():
        yield prefix + name
        for member in _models(field.annotation):
            yield from _fields(member, f"{prefix}{name}.")


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write a whole file or nothing: a temporary file in the same folder, flushed to the disk, then renamed.

    Missing parent folders are made. Text is written as UTF-8.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        # os.open, unlike tempfile, gives the file the permissions that any new file gets.
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# YAML


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.MarkedYAMLError(problem=f"the field {key!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    pass


# PyYAML's own rule wants a dot and a signed exponent in a float: `1e-6` would be a text. The dumper needs the same
# rule, else it would write the text "1e-6" without quotes.
for _yaml in (_Loader, _Dumper):
    _yaml.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+\Z"),
        list("-+.0123456789"),
    )


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file (empty for an empty file), `1e-6` read as a number.

    Raises:
        UserError: when there is no such file, it is not YAML, a field stands twice, or it holds no mapping.
    """
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UserError(f"{path}: cannot be read: {reason}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds {_show(data)}; allowed: a mapping of field names to values")
    return data


# Changes by dotted name


def _put(tree: Any, path: Sequence[str], value: Any) -> None:
    """Set the value at a path of nested dicts and lists; names that do not exist are left for the validation."""
    for depth, key in enumerate(path[:-1]):
        tree = _enter(tree, key, ".".join(path[: depth + 1]), value if path[depth + 1 :] == ["kind"] else None)
    if isinstance(tree, list):
        tree[_position(tree, path[-1], ".".join(path[:-1]))] = value
    else:
        tree[path[-1]] = value


def _enter(tree: Any, key: str, name: str, kind: Any) -> Any:
    """The container below `key`, made where there is none, and emptied where it is of another kind than the new one."""
    at: Any = _position(tree, key, name.rpartition(".")[0]) if isinstance(tree, list) else key
    inner = tree[at] if isinstance(tree, list) else tree.get(at)
    if isinstance(inner, Config):
        inner = inner.model_dump()
    elif isinstance(inner, tuple):
        inner = list(inner)
    if inner is None or (kind is not None and isinstance(inner, dict) and inner.get("kind") != kind):
        inner = {}
    if not isinstance(inner, (dict, list)):
        raise UserError(f"{name} is {_show(inner)} and has no fields of its own; set {name} itself")
    tree[at] = inner
    return inner


def _position(items: list[Any], key: str, name: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        allowed = f"0 to {len(items) - 1}" if items else "none, the list is empty"
        raise UserError(f"{name}: no position {key!r} in this list; allowed: {allowed}")
    return int(key)


# Errors in words

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


def _reword(error: pydantic.ValidationError, model_cls: type[pydantic.BaseModel], where: str) -> str:
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
            return f"{name} is {_show(value)} and names no {field}; allowed: {field} = {', '.join(map(repr, kinds))}"
        name, value = f"{name}.{field}", item["ctx"]["tag"]
        return f"{name} is {_show(value)}; allowed: {', '.join(map(repr, kinds))}{suggest(value, kinds)}"
    choices = [choice for choice in get_args(_bare(expected)) if isinstance(choice, str)]
    hint = suggest(value, choices) if isinstance(value, str) else ""
    return f"{name or 'the configuration'} is {_show(value)}; allowed: {_describe(expected)}{hint}"


def _unknown(name: str, value: Any, owner: type[pydantic.BaseModel], root: type[pydantic.BaseModel]) -> str:
    group, _, leaf = name.rpartition(".")
    hint = suggest(leaf, owner.model_fields)
    if not hint:
        namesakes = [full for full in fields(root) if full.rpartition(".")[2] == leaf.replace("-", "_")]
        hint = f"; did you mean {namesakes[0]!r}?" if namesakes else ""
    place = f" of {group}" if group else ""
    return f"{name} (given as {_show(value)}) is not a field{place}" + (
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
            here = _annotated(field) if field else Any
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


def _annotated(field: FieldInfo) -> Any:
    # Subscribed by a tuple, since the number of constraints is not known beforehand.
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation  # pyright: ignore


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


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
