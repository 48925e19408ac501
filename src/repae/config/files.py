"""Files and folders that are written whole or not at all, and YAML that reads numbers as people write them."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import yaml

from repae.config.errors import UserError, show

TEMPORARY = ".tmp-"
"""How the names of what is unfinished begin. Nothing whose name begins with a dot is ever read."""

REPLACED = ".replaced"
"""How the name of a folder ends while another is put in its place."""


class Unfinished:
    """What is written at ``path`` until `finish` gives it the name ``target``, or `discard` removes it.

    Args:
        target: a file or a folder; missing parent folders are made.
        scratch: where it stands until then, on the same disk; what a killed process left there may be removed by
            whoever owns it. By default hidden beside the target.
    """

    def __init__(self, target: Path, scratch: Path | None = None) -> None:
        self.target = target
        # Cut, since a name may have 255 bytes in all.
        self.path = (scratch or target.parent) / f"{TEMPORARY}{target.name[:50]}-{secrets.token_hex(4)}"
        for folder in {self.path.parent, target.parent}:
            folder.mkdir(parents=True, exist_ok=True)

    def finish(self) -> None:
        """Give it its name, at once. That the name outlives a power cut takes a `sync` of the target's folder."""
        self.path.replace(self.target)

    def discard(self) -> None:
        if self.path.is_dir():
            shutil.rmtree(self.path, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: Path, *, flush: bool = True, scratch: Path | None = None) -> Iterator[IO[bytes]]:
    """A file to write into, which takes the name ``path`` once it is complete and on the disk, or never exists.

    Without ``flush`` that holds where a process is killed, not where the machine is: for files whose end is looked at.
    """
    unfinished = Unfinished(path, scratch)
    try:
        # Opened by name: unlike a file of tempfile's it gets the permissions of any new file.
        with unfinished.path.open("xb") as file:
            yield file
            if flush:
                file.flush()
                os.fsync(file.fileno())
        unfinished.finish()
    finally:
        unfinished.discard()
    if flush:
        sync(path.parent)


@contextmanager
def atomic_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to write into, which takes the name ``path`` once all in it is on the disk, or never exists.

    With ``replace`` a folder that is there already goes. A kill in between can leave it under a name with `REPLACED`:
    see `settle`.

    Raises:
        FileExistsError: something that is not to be replaced stands at ``path`` at the end. An empty folder is.
    """
    unfinished, former = Unfinished(path), path.with_name(path.name + REPLACED)
    try:
        unfinished.path.mkdir()
        yield unfinished.path
        # Before the new name: after a power cut a whole folder's name must not stand for half of it.
        for inner in (*unfinished.path.rglob("*"), unfinished.path):
            sync(inner)
        try:
            if path.exists():
                path.rename(former) if replace else path.rmdir()
            unfinished.finish()
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, "it was made meanwhile", str(path)) from error
            raise
        sync(path.parent)
    finally:
        unfinished.discard()
    if replace and former.exists():
        remove_folder(former)


def write_atomic(path: str | Path, data: str | bytes, scratch: Path | None = None) -> None:
    """Write a whole file or nothing, text as UTF-8."""
    with atomic_file(Path(path), scratch=scratch) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def readable(name: str | Path) -> str:
    """A file name as it can be printed on one line, whatever bytes it has."""
    return os.fsencode(name).decode("utf-8", "replace").replace("\n", "\\n")


def cache_folder(name: str, given: str | None = None) -> Path:
    """Where files of a kind are kept that can be had again: the folder that somebody gave, else one of the user's."""
    if given is not None:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "repae" / name


def remove_folder(path: Path) -> None:
    """Remove a folder, out of sight first: a half-removed one must not look like a whole one."""
    doomed = Unfinished(path)
    path.rename(doomed.path)
    shutil.rmtree(doomed.path)


def settle(folder: Path) -> None:
    """Remove what killed processes left unfinished in ``folder``, and finish or undo what they were replacing."""
    for leftover in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)
    for former in folder.glob(f"*{REPLACED}"):
        path = former.with_name(former.name.removesuffix(REPLACED))
        remove_folder(former) if path.exists() else former.rename(path)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name != "posix":  # where a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for index, key in enumerate(keys):
            # PyYAML would take the later of the two without a word.
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
        raise UserError(f"{path}: cannot be read: {reason}; give a YAML file in UTF-8") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{place}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UserError(f"{path}: holds {show(data)}; allowed: a mapping of field names to values")
    return data


def dump_yaml(data: dict[str, Any]) -> str:
    """Plain data as YAML, in its own order; `read_yaml` gives the same data back."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
