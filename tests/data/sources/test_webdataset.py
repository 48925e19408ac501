"""WebDataset shards: written by WebDataset itself, on the disk, behind a web server, in object storage."""

from __future__ import annotations

import http.server
import re
import tarfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from errors import assert_tells, refused
from image_sources import write_shards, write_tar

from repae.config import UserError
from repae.data import WebDatasetConfig
from repae.data.image_source import ImageSource
from repae.data.sources import shard_index
from repae.data.sources import webdataset as module
from repae.data.sources.webdataset import expand_braces, shard_paths

FILES = {
    f"{own}/{i}.{kind}": own.encode() * (i + 1) for i in range(5) for own, kind in (("cat", "png"), ("dog", "jpg"))
}


def opened(path: Path | str, tmp_path: Path, **options: Any) -> ImageSource:
    return WebDatasetConfig(path=str(path), cache=str(tmp_path / "cache"), **options).source()


def contents(source: ImageSource) -> list[tuple[bytes, str]]:
    return [(source.read(i), source.class_names[source.labels[i]]) for i in range(len(source))]


EXPECTED = [(own.encode() * (i + 1), own) for own in ("cat", "dog") for i in range(5)]


@pytest.mark.parametrize("label", ["cls", "json", "txt"])
def test_the_class_of_a_sample(label: str, tmp_path: Path) -> None:
    """Protects the three ways in which samples say their class, and the order: shards, then names."""
    root = write_shards(tmp_path / "shards", FILES, label=label)
    source = opened(root, tmp_path)
    assert len(source.shards) == 2
    if label == "cls":
        assert contents(source) == [(content, str(["cat", "dog"].index(own))) for content, own in EXPECTED]
    else:
        assert contents(source) == EXPECTED
    assert source.notes == () and source.name(7) == "00001/0000.jpg"


def test_another_field_of_the_json(tmp_path: Path) -> None:
    """Protects shards whose field has another name, and refuses one that is not there."""
    root = write_shards(tmp_path / "shards", FILES, label="json")
    assert opened(root, tmp_path, label="other").class_names == ("1",)
    with refused(UserError, root, "'klass'", "--data.label", "--data.labels none"):
        opened(root, tmp_path, label="klass")


def test_class_names_from_a_file(tmp_path: Path) -> None:
    """Protects names in reports and pictures where shards have numbers alone."""
    (tmp_path / "names.txt").write_text("cat\ndog\nemu\n")
    source = opened(write_shards(tmp_path / "shards", FILES), tmp_path, classes=str(tmp_path / "names.txt"))
    assert source.class_names == ("cat", "dog", "emu") and contents(source) == EXPECTED


def test_samples_of_all_sorts(tmp_path: Path) -> None:
    """Protects from what stands in shards of the web: dots in names, several images, none, no class, no sample."""
    files = {
        "in.side/a.jpg": b"a", "in.side/a.cls": b"1", "b.PNG": b"b", "b.cls": b"0\n",
        "c.seg.png": b"segments", "c.webp": b"c", "c.cls": b"0", "d.txt": b"no image", "d.cls": b"0",
        "e.jpg": b"no class", "f.png": b"second", "f.jpg": b"first", "f.cls": b"1", "._g.jpg": b"", "._g.cls": b"7",
    }  # fmt: skip
    write_tar(tmp_path / "a.tar", files)
    source = opened(tmp_path / "a.tar", tmp_path)
    found = {source.name(i): (source.read(i), int(source.labels[i])) for i in range(len(source))}
    assert found == {
        "00000/in.side/a.jpg": (b"a", 1), "00000/b.png": (b"b", 0), "00000/c.webp": (b"c", 0),
        "00000/f.jpg": (b"first", 1),
    }  # fmt: skip
    assert "1 sample of" in source.notes[0] and "without a jpg, png or webp" in source.notes[0]
    assert "1 image without a class" in source.notes[1]
    everything = opened(tmp_path / "a.tar", tmp_path, labels="none")
    assert everything.class_names == ("all",) and len(everything) == 5


@pytest.mark.parametrize(
    "files, facts",
    [
        ({"a.jpg": b"a", "b.jpg": b"b"}, [".cls, .json or .txt", "no class", "--data.labels none"]),
        ({"a.txt": b"a", "a.cls": b"1"}, ["no samples", "jpg, png or webp", "--data.kind archive"]),
        ({"a.jpg": b"a", "a.json": b"{"}, [".json", "'a.jpg'", "line 1 column 2", "repair it"]),
        ({"a.jpg": b"a", "a.cls": b"-3"}, ["'a.jpg'", -3, "from 0 on"]),
    ],
)
def test_shards_that_cannot_be_used_are_refused_in_words(
    files: dict[str, bytes], facts: list[object], tmp_path: Path
) -> None:
    """Protects the user: the shard or the sample, and what to do."""
    write_tar(tmp_path / "a.tar", files)
    with refused(UserError, tmp_path / "a.tar", *facts) as error:
        opened(tmp_path / "a.tar", tmp_path)
    assert "\n" not in str(error.value)


def test_captions_are_no_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects from a class for each image, where `.txt` holds sentences."""
    monkeypatch.setattr(module, "MOST_CAPTIONS", 5)
    write_tar(tmp_path / "a.tar", {f"{i}.{k}": f"a cat, number {i}".encode() for i in range(6) for k in ("jpg", "txt")})
    with refused(UserError, tmp_path / "a.tar", ".txt", "6 different texts", "captions", "--data.labels none"):
        opened(tmp_path / "a.tar", tmp_path)
    assert len(opened(tmp_path / "a.tar", tmp_path, labels="none")) == 6


def test_an_index_is_made_once_and_belongs_to_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the time to the first step, and labels after a shard was replaced; a spoilt index is made anew."""
    root = write_shards(tmp_path / "shards", FILES, label="txt")
    before = contents(opened(root, tmp_path))
    indexed: list[str] = []
    found = shard_index.members

    def counted(stream: Any, where: str) -> Any:
        indexed.append(where)
        return found(stream, where)

    monkeypatch.setattr(shard_index, "members", counted)
    assert contents(opened(root, tmp_path)) == before and indexed == []
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 2 and all(path.name.endswith(".idx.npz") for path in kept)
    kept[0].write_bytes(kept[0].read_bytes()[:100])
    kept[1].write_bytes(b"")
    assert contents(opened(root, tmp_path)) == before and len(indexed) == 2
    write_tar(root / "000.tar", {"x.jpg": b"new", "x.txt": b"cat"})
    assert contents(opened(root, tmp_path))[0] == (b"new", "cat") and len(indexed) == 3


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects machines with a read-only home: it goes on, and says what it costs."""
    (tmp_path / "cache").write_text("a file")
    assert len(opened(write_shards(tmp_path / "shards", FILES), tmp_path)) == 10
    assert_tells(caplog.text, "cannot be kept", "--data.cache")


def test_the_default_cache_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the folder of the data, which is not ours to write into."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    root = write_shards(tmp_path / "shards", FILES)
    WebDatasetConfig(path=str(root)).source()
    assert len(list((tmp_path / "xdg" / "repae" / "shards").iterdir())) == 2
    assert sorted(path.name for path in root.iterdir()) == ["000.tar", "001.tar"]


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("a", ["a"]),
        ("a-{08..11}.tar", ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]),
        ("a-{8..10}.tar", ["a-8.tar", "a-9.tar", "a-10.tar"]),
        ("{a,b}/{0..1}", ["a/0", "a/1", "b/0", "b/1"]),
        ("{000..001}{x}", ["000{x}", "001{x}"]),
    ],
)
def test_braces_are_a_shells(pattern: str, names: list[str]) -> None:
    """Protects the names of shards: zeros in front where the pattern has them."""
    assert expand_braces(pattern) == names


def test_the_shards_a_path_names(tmp_path: Path) -> None:
    """Protects order and completeness: a folder, a tar, braces, a star; and a path where there are none."""
    root = write_shards(tmp_path / "shards", FILES)
    both = [str(root / "000.tar"), str(root / "001.tar")]
    for path in (root, root / "{000..001}.tar", root / "*.tar", tmp_path / "*" / "00?.tar"):
        assert shard_paths(str(path)) == both
    assert shard_paths(str(root / "001.tar")) == both[1:]
    for path in (tmp_path / "*.tar", tmp_path):
        with refused(UserError, path, "no shards", "shards/{000..012}.tar"):
            shard_paths(str(path))
    with refused(UserError, root / "002.tar", "No such file", "correct the path"):
        opened(root / "{000..002}.tar", tmp_path)
    assert list(WebDatasetConfig(path=str(root / "{000..001}.tar")).missing()) == []
    (said,) = WebDatasetConfig(path=str(root / "{000..002}.tar")).missing()
    assert "002.tar" in said and "001.tar" not in said


def test_few_shards_are_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Protects the system's limit of open files, in sets of thousands of shards."""
    monkeypatch.setattr(module, "OPEN_SHARDS", 3)
    for i in range(9):
        write_tar(tmp_path / f"{i}.tar", {"a.jpg": bytes([i]), "a.cls": b"0"})
    source = opened(tmp_path / "{0..8}.tar", tmp_path)
    order = np.random.default_rng(0).permutation(9).tolist()
    assert [source.read(i)[0] for i in order] == order
    assert sum(shard._file is not None for shard in source.shards) == 3


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    """Protects against a set that is smaller because a download broke off."""
    root = write_shards(tmp_path / "shards", FILES)
    content = (root / "001.tar").read_bytes()
    (root / "001.tar").write_bytes(content[: content.rindex(b"ustar") + 300])
    with refused(UserError, root / "001.tar", "damaged", "6 files", "again"):
        opened(root, tmp_path)
    with tarfile.open(root / "001.tar", "w:gz"):
        pass
    with refused(UserError, root / "001.tar", "gzip", "gunzip -k"):
        opened(root, tmp_path)


class Server(http.server.BaseHTTPRequestHandler):
    """Serves files by ranges, as object storage does, and counts what it gave."""

    root: Path
    ranges = True
    given: Counter[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = self.root / self.path.strip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if self.ranges else None
        part = content
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
            part = content[start : end + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        else:
            self.send_response(200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.end_headers()
        if body:
            self.given[path.name] += len(part)
            self.wfile.write(part)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, type[Server]]]:
    """A web server for the folder `shards` of the test: its address, and its class, which counts."""
    handler = type("Counting", (Server,), {"root": tmp_path / "shards", "given": Counter()})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}", handler
        serving.shutdown()
        thread.join()


def test_shards_behind_a_web_server(tmp_path: Path, server: tuple[str, type[Server]]) -> None:
    """Protects training from the web: each shard is read through once, then an image costs its own bytes alone."""
    address, handler = server
    files = {name: content * 1000 for name, content in FILES.items()}
    root = write_shards(tmp_path / "shards", files, label="txt")
    source = opened(f"{address}/{{000..001}}.tar", tmp_path)
    assert contents(source) == [(content * 1000, own) for content, own in EXPECTED]
    handler.given.clear()
    again = opened(f"{address}/{{000..001}}.tar", tmp_path)
    assert sum(handler.given.values()) == 0
    assert again.read(9) == b"dog" * 5000 and sum(handler.given.values()) == 15_000
    assert again.fingerprint == opened(root, tmp_path).fingerprint == source.fingerprint
    write_tar(root / "000.tar", {"x.jpg": b"new", "x.txt": b"cat"})
    assert opened(f"{address}/{{000..001}}.tar", tmp_path).read(0) == b"new"


def test_a_web_server_that_does_not_play_along(tmp_path: Path, server: tuple[str, type[Server]]) -> None:
    """Protects the user: what is not there and what cannot be read in parts is said, with the URL."""
    address, handler = server
    write_shards(tmp_path / "shards", FILES)
    with refused(UserError, f"{address}/002.tar", "not there", "correct the URL"):
        opened(f"{address}/{{000..002}}.tar", tmp_path)
    handler.ranges = False
    with refused(UserError, f"{address}/000.tar", "ranges", "download it"):
        opened(f"{address}/000.tar", tmp_path)


def test_shards_in_object_storage(tmp_path: Path) -> None:
    """Protects s3, gs and their like, by fsspec's storage in memory: a pattern, a folder, one name."""
    store = fsspec.filesystem("memory")
    for path in write_shards(tmp_path / "shards", FILES, label="txt").iterdir():
        store.pipe(f"/wds/{path.name}", path.read_bytes())
    for path in ("memory://wds/{000..001}.tar", "memory://wds/*.tar", "memory://wds/"):
        assert contents(opened(path, tmp_path)) == EXPECTED
    with refused(UserError, "memory://nothing/*.tar", "no shards", "shards/{000..012}.tar"):
        opened("memory://nothing/*.tar", tmp_path)
