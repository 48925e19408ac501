"""Files and folders appear whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from errors import refused
from hypothesis import given
from hypothesis import strategies as st

from repae.config import atomic_file, atomic_folder, write_atomic
from repae.config.files import settle


@given(data=st.binary() | st.text())
def test_a_file_is_written_whole(data: bytes | str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is read is what was written, and no temporary file stays."""
    folder = tmp_path_factory.getbasetemp() / "written" / "deep"
    write_atomic(folder / "file", data)
    assert (folder / "file").read_bytes() == (data.encode() if isinstance(data, str) else data)
    assert [path.name for path in folder.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk or a kill before the end leaves the old content, and a failure no debris."""
    path = tmp_path / "metrics.json"
    write_atomic(path, json.dumps({"a": 1}))
    mode = path.stat().st_mode

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with refused(OSError, "No space left"):
            write_atomic(path, "x" * 1000)
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.write_text("")
    assert stat.S_IMODE(mode) == stat.S_IMODE(plain.stat().st_mode)


def test_a_file_has_no_name_before_it_is_complete(tmp_path: Path) -> None:
    """Protects readers: while it is written, and where writing fails, only the former content can be seen."""
    path = tmp_path / "file"
    path.write_text("former")
    with atomic_file(path, flush=False) as file:
        file.write(b"new")
        assert path.read_text() == "former"
    assert path.read_text() == "new"
    with pytest.raises(RuntimeError), atomic_file(path, scratch=tmp_path / "scratch") as file:
        assert [entry.name[:10] for entry in (tmp_path / "scratch").iterdir()] == [".tmp-file-"]
        raise RuntimeError
    assert path.read_text() == "new" and not list((tmp_path / "scratch").iterdir())


def test_a_folder_appears_whole_and_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects against a power cut: all in it and its own names are safe before it has its name."""
    safe, path = set(), tmp_path / "below" / "made"
    path.mkdir(parents=True)

    def sync(file: int) -> None:
        safe.add(Path(f"/proc/self/fd/{file}").readlink().name)

    with pytest.raises(RuntimeError), atomic_folder(path):
        raise RuntimeError
    monkeypatch.setattr(os, "fsync", sync)
    with atomic_folder(path) as folder:
        (folder / "inner").mkdir()
        (folder / "inner" / "a").write_text("a")
        assert not list(path.iterdir())
        hidden = folder.name
    assert safe == {hidden, "inner", "a", "below"}
    assert [entry.name for entry in path.parent.iterdir()] == ["made"] and (path / "inner" / "a").read_text() == "a"


def test_a_folder_is_replaced_only_where_that_is_meant(tmp_path: Path) -> None:
    """Protects what somebody put there meanwhile; where it is meant, all of the former content goes."""
    path, other = tmp_path / "made", tmp_path / "new.replaced"
    other.mkdir()
    with refused(FileExistsError, path), atomic_folder(path) as folder:
        (folder / "a").write_text("a")
        path.mkdir()
        (path / "theirs").touch()
    with atomic_folder(tmp_path / "new"):
        pass
    assert {entry.name for entry in tmp_path.iterdir()} == {"made", "new", "new.replaced"}
    assert (path / "theirs").exists()
    other.rmdir()
    (tmp_path / "new").rmdir()
    with atomic_folder(path, replace=True) as folder:
        (folder / "b").write_text("b")
    assert [entry.name for entry in tmp_path.iterdir()] == ["made"] and [e.name for e in path.iterdir()] == ["b"]


def test_what_a_kill_left_is_settled(tmp_path: Path) -> None:
    """Protects the former folder where its successor never came, and the disk: everything unfinished goes."""
    for name in (".tmp-file-01", "kept"):
        (tmp_path / name).write_text("x")
    for name in (".tmp-folder-01", "done", "done.replaced", "half.replaced"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "origin").write_text(name)
    settle(tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["done", "half", "kept"]
    assert (tmp_path / "done" / "origin").read_text() == "done"
