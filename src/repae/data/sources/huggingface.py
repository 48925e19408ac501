"""Data sets of the Hugging Face hub and their files: parquet, arrow, `save_to_disk`, `imagefolder`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from repae.config import UserError, one_line, suggest
from repae.config.files import readable
from repae.data.image_source import BrokenImageError, Digest, ImageSource
from repae.data.images import ImagesConfig
from repae.data.sources.classes import MISSING, Classes, classify
from repae.data.sources.labelling import ALL
from repae.data.sources.names import count, join
from repae.runtime.remote import is_url

HUB = "hf://"
ROWS = 4096
"""So many rows are looked at together where sizes are summed up."""


class HuggingFaceConfig(ImagesConfig):
    """A data set that the library `datasets` reads, its images as they are stored.

    Attributes:
        path: a parquet or arrow file, a folder of them, a folder written by `save_to_disk`, an image folder, or a name
            on the hub, also as `hf://owner/name`.
        split: the part of the data set.
        subset: the configuration of a data set on the hub that has several.
        image: the column of the images.
        label: the column of the classes.
        cache: where `datasets` keeps what it fetched and converted; by default its own folder.
    """

    kind: Literal["huggingface"] = "huggingface"
    split: str = "train"
    subset: str | None = None
    image: str = "image"
    label: str = "label"
    cache: str | None = None

    def source(self) -> HuggingFaceSource:
        """The data set, opened. Parquet is first converted to arrow, once, in the cache of `datasets`."""
        return HuggingFaceSource(load(self), self)

    def missing(self) -> Iterator[str]:
        """A local path that is not there; a name on the hub cannot be told before it is asked for."""
        if Path(self.path).suffix in (".parquet", ".arrow") and not is_url(self.path):
            yield from super().missing()


class HuggingFaceSource(ImageSource):
    """The rows of a data set that have an image, in its order."""

    def __init__(self, rows: Any, config: HuggingFaceConfig) -> None:
        import datasets

        self.where = readable(config.path)
        self.root = Path(config.path).expanduser()
        self.column = _column(rows, config.image, "image", self.where)
        classes = _classes(rows, config, self.where)
        self.class_names, self.notes = classes.names, classes.notes
        self.places = (classes.labels != MISSING).nonzero()[0]
        self.labels = classes.labels[self.places]
        try:
            encoded = rows.select_columns([self.column]).cast_column(self.column, datasets.Image(decode=False))
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"column '{self.column}' of '{self.where}' holds {rows.features[self.column]} and no images: "
                f"{one_line(error)}; name another with --data.image"
            ) from None
        self.rows = encoded

    def name(self, index: int) -> str:
        """The number of the row, from 0 on."""
        return f"row {int(self.places[index])}"

    def read(self, index: int) -> bytes:
        value = self.rows[int(self.places[index])][self.column]
        if value is None or (value["bytes"] is None and value["path"] is None):
            raise BrokenImageError("its row holds no image")
        return _file(value["path"], self.root).read_bytes() if value["bytes"] is None else value["bytes"]

    def _digest(self) -> Digest:
        digest = Digest("huggingface", *self.class_names)
        sizes = _sizes(self.rows, self.column, self.root)
        for place, label in zip(self.places.tolist(), self.labels.tolist()):
            digest.add(f"{place}", int(sizes[place]), label)
        return digest


def load(config: HuggingFaceConfig) -> Any:
    """One split of a data set, a `datasets.Dataset`."""
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"'{config.path}' needs the library datasets, which is not installed: pip install 'repae[datasets]'"
        ) from None
    where = readable(config.path)
    try:
        found = _load(config)
    except UserError:
        raise
    except Exception as error:  # the library raises anything, of its own and of those below it
        raise UserError(f"data set '{where}' cannot be opened: {one_line(error)}{_remedy(config, error)}") from None
    if isinstance(found, datasets.DatasetDict):
        parts = list(map(str, found))
        if config.split not in found:
            raise UserError(
                f"data set '{where}' has no split '{config.split}'{suggest(config.split, parts)}; it has "
                f"{join(parts)}; choose one with --data.split"
            )
        found = found[config.split]
    if not len(found):
        raise UserError(f"split '{config.split}' of data set '{where}' is empty; choose another with --data.split")
    return found


def _load(config: HuggingFaceConfig) -> Any:
    import datasets

    path = Path(config.path.removeprefix(HUB) if config.path.startswith(HUB) else config.path).expanduser()
    more: dict[str, Any] = {"cache_dir": config.cache} if config.cache else {}
    if config.path.startswith(HUB):
        return datasets.load_dataset(config.path.removeprefix(HUB), config.subset, split=config.split, **more)
    if is_saved_to_disk(path):
        return datasets.load_from_disk(str(path))
    if path.is_dir() and (arrows := sorted(path.glob("*.arrow"))):
        return datasets.concatenate_datasets([datasets.Dataset.from_file(str(file)) for file in arrows])
    if path.suffix == ".arrow":
        return datasets.Dataset.from_file(str(path))
    if path.suffix == ".parquet":
        return datasets.load_dataset("parquet", data_files={config.split: config.path}, split=config.split, **more)
    # A local path is given whole: of a folder called `parquet` or `csv` the library would not look inside.
    name = str(path.resolve()) if path.exists() else config.path
    return datasets.load_dataset(name, config.subset, split=config.split, **more)


def is_saved_to_disk(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _remedy(config: HuggingFaceConfig, error: Exception) -> str:
    if Path(config.path).expanduser().exists() or is_url(config.path.removeprefix(HUB)):
        return "; correct the path, or --data.split"
    if "onnect" in str(error) + type(error).__name__ or "ffline" in str(error) + type(error).__name__:
        return (
            "; without a connection, fetch it elsewhere, write it with save_to_disk, and give that folder as the path"
        )
    return "; correct the name, or for one that needs a permission, log in with `hf auth login`"


def _column(rows: Any, wanted: str, option: str, where: str) -> str:
    if wanted in rows.column_names:
        return wanted
    more = "; or train without classes: --data.labels none" if option == "label" else ""
    raise UserError(
        f"data set '{where}' has no column '{wanted}'{suggest(wanted, rows.column_names)}; it has "
        f"{join(rows.column_names, 12)}; choose one with --data.{option}{more}"
    )


def _classes(rows: Any, config: HuggingFaceConfig, where: str) -> Classes:
    """The classes of a column: of the feature where it names them, else of the values."""
    import datasets

    if config.labels == "none":
        return Classes((ALL,), np.zeros(len(rows), dtype=np.int64), ())
    column = _column(rows, config.label, "label", where)
    values = rows.select_columns([column]).with_format("arrow")[:][column].combine_chunks()
    feature = rows.features[column]
    if not isinstance(feature, datasets.ClassLabel):
        coded = values.dictionary_encode()
        known, codes = coded.dictionary.to_pylist(), coded.indices.fill_null(len(coded.dictionary)).to_numpy()
        return classify(([*known, None][code] for code in codes.tolist()), lambda place: f"row {place}", f"'{where}'")
    labels = values.fill_null(MISSING).to_numpy(zero_copy_only=False).astype(np.int64)
    missing = int((labels == MISSING).sum())
    if missing == len(labels):
        raise UserError(
            f"split '{config.split}' of '{where}' gives no image a class; choose another with --data.split, or train "
            "without classes: --data.labels none"
        )
    names = tuple(map(readable, feature.names))
    notes = [f"{count(missing, 'row')} without a class in '{where}' left out"] if missing else []
    if absent := len(names) - len(np.unique(labels[labels != MISSING])):
        notes.append(f"{absent} of the {len(names)} classes of '{where}' have no image in it")
    return Classes(names, labels, tuple(notes))


def _sizes(rows: Any, column: str, root: Path) -> Int64[np.ndarray, " n"]:
    """Bytes of each image, by the lengths that the table holds; -1 where there is none."""
    import pyarrow.compute

    compute: Any = pyarrow.compute  # whose functions are made at run time
    table = rows.with_format("arrow")
    parts = []
    for start in range(0, len(rows), ROWS):
        images = table[start : start + ROWS][column].combine_chunks()
        lengths = compute.fill_null(compute.binary_length(compute.struct_field(images, "bytes")), -1)
        sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
        if (sizes < 0).any():
            paths = compute.struct_field(images, "path").to_pylist()
            for place in (sizes < 0).nonzero()[0].tolist():
                file = None if paths[place] is None else _file(paths[place], root)
                sizes[place] = file.stat().st_size if file is not None and file.is_file() else -1
        parts.append(sizes)
    return np.concatenate(parts)


def _file(path: str, root: Path) -> Path:
    """Where an image lies that a table names: by its own path, or counted from the table's folder."""
    here = Path(path)
    return here if here.is_absolute() or here.exists() else (root if root.is_dir() else root.parent) / here
