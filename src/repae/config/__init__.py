"""The ground floor: configurations that refuse what they do not know, errors made for people, files written whole.

Imports no torch, so that the command line can answer before anything heavy is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic

from repae.config.annotations import fields
from repae.config.errors import UserError, one_line, reword, show, suggest
from repae.config.files import atomic_file, atomic_folder, dump_yaml, read_yaml, write_atomic
from repae.config.locks import Busy, locked

__all__ = [
    "Busy",
    "Config",
    "UserError",
    "atomic_file",
    "atomic_folder",
    "check",
    "fields",
    "json_digest",
    "locked",
    "one_line",
    "read_yaml",
    "suggest",
    "write_atomic",
]

ConfigT = TypeVar("ConfigT", bound="Config")


if TYPE_CHECKING:  # a checker that saw `__call__` would forget the fields that a constructor takes
    _ConfigMeta = type(pydantic.BaseModel)
else:

    class _ConfigMeta(type(pydantic.BaseModel)):
        """Words the errors of a direct construction, `SiTConfig(depth=-1)`, as `check` words those of a file."""

        def __call__(cls, *args: Any, **data: Any) -> Any:
            try:
                return super().__call__(*args, **data)
            except pydantic.ValidationError as error:
                raise UserError(reword(error, cls, cls.__name__)) from None


class Config(pydantic.BaseModel, metaclass=_ConfigMeta):
    """Base of every configuration: frozen, unknown fields refused, defaults validated, NaN and infinity refused.

    A choice between configurations is a union discriminated by a literal field `kind`.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False, protected_namespaces=()
    )

    def replace(self: ConfigT, **changes: Any) -> ConfigT:
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
        return dump_yaml(self.model_dump(mode="json"))

    @classmethod
    def from_yaml(cls: type[ConfigT], path: str | Path) -> ConfigT:
        """The configuration in a YAML file; `UserError` naming the file and the field when it is not a valid one."""
        return check(cls, read_yaml(path), str(path))

    def digest(self) -> str:
        """The first 12 digits of `json_digest`: equal configurations have equal ones."""
        return json_digest(self.model_dump(mode="json"))[:12]


def json_digest(data: Any) -> str:
    """SHA-256 of the canonical JSON of plain data: without spaces, keys in order."""
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check(model_cls: type[ConfigT], data: Any, where: str) -> ConfigT:
    """Validate `data`, field names to values or nested mappings and configurations, as a `model_cls`.

    `where` is what the data is called in an error: a file, a command line, a recipe.

    Raises:
        UserError: one line that names each wrong field by its dotted path, the value seen and what is allowed.
    """
    try:
        return model_cls.model_validate(data)
    except pydantic.ValidationError as error:
        raise UserError(reword(error, model_cls, where)) from None


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
        raise UserError(f"{name} is {show(inner)} and has no fields of its own; set {name} itself")
    tree[at] = inner
    return inner


def _position(items: list[Any], key: str, name: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        allowed = f"0 to {len(items) - 1}" if items else "none, the list is empty"
        raise UserError(f"{name}: no position {key!r} in this list; allowed: {allowed}")
    return int(key)
