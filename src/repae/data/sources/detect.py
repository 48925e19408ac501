"""From a path or URL, as a person gives it, to the configuration that reads it."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from repae.config import UserError, suggest
from repae.config.files import readable
from repae.data.shard_folder import MANIFEST
from repae.data.sources.archive import archive_kind
from repae.data.sources.hdf5 import FILE
from repae.data.sources.huggingface import HUB, is_saved_to_disk
from repae.data.sources.names import OTHER_IMAGES, SUFFIXES, suffix
from repae.data.sources.ranges import RangeFile
from repae.data.sources.shard_index import IMAGES, split_name
from repae.data.sources.storage import list_folder
from repae.data.sources.tables import TABLES
from repae.data.sources.tarred import refuse_compressed
from repae.runtime.file_store import store_at
from repae.runtime.remote import is_url

if TYPE_CHECKING:
    from repae.data import DataConfig

PEEKED = 1024
"""So many bytes decide what a file is."""
ALLOWED = (
    "allowed: a folder of class folders; a folder with dataset.json or labels.csv; a .zip or .tar of either; "
    "WebDataset shards, as 'shards/{000..012}.tar' or their folder; .parquet, .arrow or a save_to_disk folder; "
    f"hf://OWNER/NAME; the reference's {FILE}; a folder that `repae prepare` made"
)


def detect(path: str, **fields: Any) -> DataConfig:
    """The configuration of whatever lies at a path: what a file is its content says, what a folder is the files in it.

    Args:
        path: a file, a folder, a URL that fsspec understands, a pattern of shards, or `hf://OWNER/NAME`.
        fields: other fields of the configuration; `kind` where the person knows better, `labels="none"` for images
            without classes.
    """
    kind = fields.pop("kind", None) or _kind(path, fields)
    if kind not in kinds():
        raise UserError(f"there is no kind of data '{kind}'{suggest(kind, kinds())}; allowed: {', '.join(kinds())}")
    return kinds()[kind](path=path, **fields)


def kinds() -> Mapping[str, type[Any]]:
    """Every kind of data set that a recipe can name and that has a path."""
    from repae.data import DataConfig

    return {
        get_args(member.model_fields["kind"].annotation)[0]: member
        for member in get_args(get_args(DataConfig)[0])
        if "path" in member.model_fields
    }


def _kind(path: str, fields: Mapping[str, Any]) -> str:
    if path.startswith(HUB):
        return "huggingface"
    if is_url(path):
        return _kind_of_url(path)
    here = Path(path).expanduser()
    try:
        if here.is_dir():
            return _kind_of_folder(here, fields)
        if here.is_file():
            return _kind_of_file(RangeFile(str(here)))
    except OSError as error:
        raise UserError(f"data '{readable(here)}' cannot be reached: {error.strerror}; correct the path") from None
    if any(sign in path for sign in "{*?[") and path.endswith(".tar"):
        return "webdataset"
    raise UserError(_nothing(here, path))


def _kind_of_url(url: str) -> str:
    if any(sign in url for sign in "{*") or url.endswith("/"):
        return "webdataset"
    if url.partition("?")[0].endswith(".parquet"):
        return "huggingface"
    if not suffix(url) and store_at(url, None, 0).has(MANIFEST):
        return "shards"
    kind = _kind_of_file(RangeFile(url))
    if kind == "reference-hdf5":
        raise UserError(f"'{url}' is HDF5, which is read from a local disk only; download it and give the local path")
    return kind


def _kind_of_file(file: RangeFile) -> str:
    start = file.read(0, PEEKED)
    kind = archive_kind(start)
    if kind == "zip":
        return "archive"
    if kind == "tar":
        return "webdataset" if _is_shard(file) else "archive"
    if kind is not None:
        raise refuse_compressed(file.where, kind)
    for magic, found in ((b"PAR1", "huggingface"), (b"ARROW1", "huggingface"), (b"\x89HDF", "reference-hdf5")):
        if start.startswith(magic):
            return found
    ending = suffix(file.where)
    if ending == ".arrow":
        return "huggingface"
    if ending in SUFFIXES | OTHER_IMAGES:
        what = "is a single image"
    elif ending in (".json", ".csv", ".tsv"):
        what = "is a table; give the folder of its images, and it by --data.table if it is not in there"
    elif ending in (".yaml", ".yml"):
        what = "is a recipe, it seems; give it in place of the recipe's name"
    else:
        what = "is a file of an unknown kind" if start else "is an empty file"
    raise UserError(f"data '{file.where}' {what}; {ALLOWED}")


def _kind_of_folder(folder: Path, fields: Mapping[str, Any]) -> str:
    files, folders = list_folder(folder)
    if MANIFEST in files:
        return "shards"
    if FILE in files:
        return "reference-hdf5"
    endings = {suffix(name) for name in files}
    if is_saved_to_disk(folder) or {".parquet", ".arrow"} & endings or _holds_parquet(folder, folders):
        return "huggingface"
    if ".tar" in endings and not SUFFIXES & endings:
        return _kind_of_tars(folder, [name for name in files if suffix(name) == ".tar"])
    tabled = fields.get("table") is not None or any(name in TABLES for name in files)
    if tabled or (not folders and {".csv", ".tsv"} & endings):
        return "labelled"
    if SUFFIXES & endings and (fields.get("labels") == "none" or not _has_images(folder, folders)):
        if fields.get("labels") == "none":
            return "labelled"
        raise UserError(_unlabelled(folder))
    return "folder"


def _kind_of_tars(folder: Path, tars: list[str]) -> str:
    if _is_shard(RangeFile(str(folder / tars[0]))):
        return "webdataset"
    raise UserError(
        f"data folder '{readable(folder)}' holds tar archives that are no WebDataset shards ('{readable(tars[0])}' has "
        "images alone); unpack each into a folder named after its class, or give one of them"
    )


def _is_shard(file: RangeFile) -> bool:
    """Whether the first files of a tar are the parts of one sample: an image and its class."""
    seen: dict[str, set[str]] = {}
    with file.stream() as stream:
        try:
            archive = tarfile.open(fileobj=stream, mode="r:")  # noqa: SIM115 - the stream is closed
            while len(seen) < 3 and (member := archive.next()) is not None:
                if member.isreg():
                    key, kind = split_name(member.name)
                    seen.setdefault(key, set()).add(kind)
        except tarfile.TarError:
            return False
    return any(parts & set(IMAGES) and parts & {"cls", "json", "txt"} for parts in seen.values())


def _holds_parquet(folder: Path, folders: list[str]) -> bool:
    """Whether the files of a hub data set lie in a folder `data` inside."""
    return "data" in folders and any(name.endswith(".parquet") for name in list_folder(folder / "data")[0])


def _has_images(folder: Path, folders: list[str]) -> bool:
    return any(suffix(name) in SUFFIXES for inner in folders for name in list_folder(folder / inner)[0])


def _unlabelled(folder: Path) -> str:
    shown = readable(folder)
    return (
        f"data folder '{shown}' holds images that nothing gives a class; move those of each class into a folder of it, "
        f"as '{shown}/cat/1.jpg', or list them in '{shown}/labels.csv' with the columns file,class, or train without "
        "classes: --data.labels none"
    )


def _nothing(here: Path, path: str) -> str:
    if path.count("/") == 1 and not path.startswith((".", "/", "~")):
        return (
            f"there is nothing at '{path}'; correct the path, or write hf://{path} if it is a data set of the hub; "
            f"{ALLOWED}"
        )
    parent = next((readable(p) for p in here.absolute().parents if p.is_dir()), "/")
    return f"there is nothing at '{readable(here)}' (of its path, '{parent}' is there); correct the path; {ALLOWED}"
