"""Checkpoints: whole or absent, checked before they are believed, readable without running anybody's code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from repae.config import UserError, atomic_folder, json_digest, one_line, write_atomic
from repae.config.files import REPLACED, remove_folder, settle
from repae.runtime.digest import sha256_of
from repae.runtime.distributed import every_process, is_main
from repae.runtime.migration import current_checkpoint
from repae.runtime.parallel import unwrap
from repae.runtime.tree import flatten, restore

SCHEMA = 2
"""Version of the layout of a checkpoint folder; the one before it is read through `repae.runtime.migration`."""

_STATE = "state.json"
_OTHER_RUN = "use the recipe that wrote it, or another output folder"
_BEST = "best.json"
_FOLDER = re.compile(rf"step-(\d+)({re.escape(REPLACED)})?")


@runtime_checkable
class Stateful(Protocol):
    """Whatever a checkpoint can hold: dicts, lists and tuples of tensors and plain values."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


class Saved(NamedTuple):
    """What a checkpoint says of itself."""

    step: int
    meta: dict[str, Any]


class Best(NamedTuple):
    """The checkpoint marked best, and the figures by which it is."""

    path: Path
    step: int
    metric: dict[str, float]


class CheckpointStore:
    """The checkpoints of one run: ``folder/step-0000100/`` and so on, the last ``keep_last`` and the best.

    Each holds a ``PART.safetensors`` for the tensors of every part and a ``state.json`` with the schema version, the
    step, the metadata, all values that are not tensors, and size and SHA-256 of every file. It is written under
    another name and renamed when it is safely on the disk, so that a process killed at any moment leaves the one
    before as the latest. The parts are the same on every process: the first one writes, all of them read.
    """

    def __init__(self, folder: str | Path, keep_last: int = 3) -> None:
        if keep_last < 1:
            raise UserError(f"keep_last is {keep_last}; at least 1 checkpoint must be kept")
        self.folder = Path(folder)
        self.keep_last = keep_last

    def save(
        self, step: int, parts: Mapping[str, Stateful], meta: dict[str, Any], best: bool | Mapping[str, float] = False
    ) -> Path:
        """Write the checkpoint of ``step``, its folder returned; every process calls this, and all wait for the first.

        Args:
            step: updates made so far; a checkpoint of the same step is replaced.
            parts: what to hold, by names that are fit for files.
            meta: plain values, for instance the resolved recipe.
            best: mark it as the best one so far, with the figures that say so when they are given.

        Raises:
            UserError: it could not be written; the checkpoints before it are as they were.
        """
        failure = ""
        if is_main():
            try:
                self._write(step, parts, meta)
                if best is not False:
                    metric = dict(best) if isinstance(best, Mapping) else {}
                    write_atomic(self.folder / _BEST, json.dumps({"step": step, "metric": _plain(metric)}))
                self._prune()
            except (OSError, SafetensorError) as error:
                failure = str(error)
        # All must hear of it, or the others would wait in the next collective for one that is gone.
        if not every_process(not failure):
            raise UserError(
                f"the checkpoint of step {step} could not be written to {self.folder}: "
                f"{failure or 'the first process says why'}; the ones before it are intact; "
                "make room or choose a folder that can be written, and run the same command again"
            )
        return self.folder / _name(step)

    def latest(self) -> Path | None:
        found = _checkpoints(self.folder)
        return found[max(found)] if found else None

    def newest(self) -> Path:
        """As `latest`, where there must be one."""
        latest = self.latest()
        if latest is None:
            run = self.folder.parent
            raise UserError(f"{run} has no checkpoint yet; train it on with `repae train {run / 'recipe.yaml'}`")
        return latest

    def steps(self) -> list[int]:
        return sorted(_checkpoints(self.folder))

    def at(self, step: int) -> Path:
        """The checkpoint of ``step``; where there is none, a `UserError` says which there are."""
        found = _checkpoints(self.folder)
        if step not in found:
            there = ", ".join(map(str, sorted(found))) or "none"
            raise UserError(f"{self.folder} has no checkpoint of step {step}; there are: {there}")
        return found[step]

    def best(self) -> Best | None:
        """The checkpoint marked best, or None where none was or it is gone."""
        try:
            record = json.loads((self.folder / _BEST).read_text())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UserError(f"{self.folder / _BEST} is damaged; delete it, the checkpoints do not need it") from error
        path = _checkpoints(self.folder).get(record["step"])
        return None if path is None else Best(path, record["step"], restore(record["metric"], {}))

    def describe(self, path: str | Path) -> Saved:
        """Step and metadata of a checkpoint, without reading its tensors."""
        state = _read_state(Path(path))
        return Saved(state["step"], restore(state["meta"], {}))

    def read(self, path: str | Path, part: str) -> dict[str, Any]:
        """The state of one part, on the CPU, verified."""
        path = Path(path)
        state = _read_state(path)
        if part not in state["parts"]:
            raise UserError(f"checkpoint {path} has no part {part!r}; allowed: {', '.join(state['parts'])}")
        _verify(path, state, part)
        return _read_part(path, state, part)

    def digest(self, path: str | Path, parts: Iterable[str]) -> str:
        """SHA-256 of the tensors of some parts, as the checkpoint records it, without reading them."""
        files = _read_state(Path(path))["files"]
        return json_digest({part: files[part]["sha256"] for part in parts if part in files})

    def load(self, path: str | Path, parts: Mapping[str, Stateful], *, partial: bool = False) -> Saved:
        """Give every part its state from the checkpoint at ``path``; nothing is loaded before all of it is verified.

        All parts of the checkpoint must be among ``parts``, unless ``partial``.

        Raises:
            UserError: written by another version, truncated, altered, without one of the parts or with more of them,
                or of a model that does not fit; the text says what to do.
        """
        path = Path(path)
        state = _read_state(path)
        missing = [name for name in parts if name not in state["parts"]]
        unexpected = [] if partial else [name for name in state["parts"] if name not in parts]
        wrong = [f"missing parts {', '.join(missing)}"] if missing else []
        wrong += [f"unexpected parts {', '.join(unexpected)}"] if unexpected else []
        if wrong:
            raise UserError(f"checkpoint {path} does not belong to this kind of run: {'; '.join(wrong)}; {_OTHER_RUN}")
        for name in parts:
            _verify(path, state, name)
        for name, part in parts.items():
            try:
                _bare(part).load_state_dict(_read_part(path, state, name))
            except (RuntimeError, KeyError, TypeError, ValueError) as error:
                raise UserError(
                    f"part {name!r} of checkpoint {path} does not fit this run: {one_line(error)}; {_OTHER_RUN}"
                ) from error
        return Saved(state["step"], restore(state["meta"], {}))

    def _write(self, step: int, parts: Mapping[str, Stateful], meta: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        # A process killed in the middle of a save left its half here.
        settle(self.folder)
        with atomic_folder(self.folder / _name(step), replace=True) as folder:
            trees, files = {}, {}
            for name, part in parts.items():
                assert re.fullmatch(r"[A-Za-z0-9_-]+", name), f"no name for a file: {name!r}"
                trees[name], tensors = flatten(_bare(part).state_dict())
                if tensors:
                    file = folder / f"{name}.safetensors"
                    save_file(tensors, file)
                    files[name] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            body = {"schema": SCHEMA, "step": step, "meta": _plain(meta), "files": files, "parts": trees}
            (folder / _STATE).write_text(json.dumps({**body, "digest": json_digest(body)}, indent=1, allow_nan=False))

    def _prune(self) -> None:
        found = _checkpoints(self.folder)
        best = self.best()
        kept = {*sorted(found)[-self.keep_last :], *(() if best is None else (best.step,))}
        for step in found.keys() - kept:
            remove_folder(found[step])


def _name(step: int) -> str:
    return f"step-{step:07d}"


def _checkpoints(folder: Path) -> dict[int, Path]:
    """The checkpoint folders by step; one that was about to be replaced counts while its successor is missing."""
    found: dict[int, Path] = {}
    # Reversed, so that the plain name comes after the one that was put aside, and wins.
    for path in sorted(folder.glob("step-*"), reverse=True):
        match = _FOLDER.fullmatch(path.name)
        if match and path.is_dir():
            found[int(match[1])] = path
    return found


def _bare(part: Stateful) -> Stateful:
    return unwrap(part) if isinstance(part, nn.Module) else part


def _read_state(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        there = ", ".join(found.name for found in _checkpoints(path.parent).values()) or "none"
        raise UserError(f"there is no checkpoint at {path}; there are: {there}")
    try:
        state = json.loads((path / _STATE).read_text())
        schema = state["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{_STATE} cannot be read") from error
    if schema not in range(1, SCHEMA + 1):
        raise UserError(
            f"checkpoint {path} has schema {schema!r}, this version of repae reads schemas up to {SCHEMA}; "
            f"use the version that wrote it, or {_remedy(path)}"
        )
    if state.pop("digest", None) != json_digest(state):
        raise _damaged(path, f"{_STATE} has been altered")
    return current_checkpoint(state, SCHEMA)


def _verify(path: Path, state: dict[str, Any], part: str) -> None:
    expected = state["files"].get(part)
    if expected is None:
        return
    file = path / f"{part}.safetensors"
    if not file.is_file():
        raise _damaged(path, f"{file.name} is missing")
    # The size first: it costs nothing and tells most truncated copies.
    if file.stat().st_size != expected["bytes"]:
        raise _damaged(path, f"{file.name} has {file.stat().st_size} bytes instead of {expected['bytes']}")
    if sha256_of(file) != expected["sha256"]:
        raise _damaged(path, f"{file.name} has been altered")


def _read_part(path: Path, state: dict[str, Any], part: str) -> dict[str, Any]:
    file = path / f"{part}.safetensors"
    # Copies, because what load_file gives is mapped from a file that may be removed.
    tensors = {name: x.clone() for name, x in load_file(file).items()} if part in state["files"] else {}
    return restore(state["parts"][part], tensors)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"checkpoint {path} is damaged: {what}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    this = _FOLDER.match(path.name)
    before = [step for step in _checkpoints(path.parent) if this is None or step < int(this[1])]
    return f"delete that folder to {f'go on from {_name(max(before))}' if before else 'start from the beginning'}"


def _plain(tree: Any) -> Any:
    skeleton, tensors = flatten(tree)
    assert not tensors, f"tensors belong into parts: {', '.join(tensors)}"
    return skeleton
