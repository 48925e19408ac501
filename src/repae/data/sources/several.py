"""Several sources as one, their classes united by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, field_serializer, field_validator

from repae.config import UserError
from repae.data.image_source import Digest, ImageSource
from repae.data.images import PixelsConfig
from repae.data.sources.archive import ArchiveConfig
from repae.data.sources.folder import FolderConfig, LabelledConfig
from repae.data.sources.hdf5 import ReferenceHdf5Config
from repae.data.sources.huggingface import HuggingFaceConfig
from repae.data.sources.names import join
from repae.data.sources.webdataset import WebDatasetConfig

AnySource = Annotated[
    FolderConfig | LabelledConfig | ArchiveConfig | WebDatasetConfig | HuggingFaceConfig | ReferenceHdf5Config,
    Field(discriminator="kind"),
]
"""Any single source."""

OF_THE_WHOLE = frozenset(PixelsConfig.model_fields) - {"kind"}
"""Fields of the whole, which no part of it has for itself."""


class SeveralConfig(PixelsConfig):
    """Several sources as one data set, one after the other; classes of one name are one class.

    A class of two sources is the same where its name is the same to the letter, so `cat` of both is one. Where sources
    have only numbers for names nobody can tell whether class 3 of one is class 3 of the other: that is refused, unless
    they share no number or `same_numbers` says that they mean the same. Classes are sorted by name, or by size where
    all are numbers.

    Attributes:
        sources: what each of them is; resolution, flip and so on belong to the whole.
        same_numbers: classes that are only numbers mean the same in all sources.
    """

    kind: Literal["several"] = "several"
    sources: tuple[AnySource, ...] = Field(min_length=1)
    same_numbers: bool = False

    @property
    def where(self) -> str:
        return join([source.where for source in self.sources])

    def missing(self) -> Iterator[str]:
        for source in self.sources:
            yield from source.missing()

    def source(self) -> SeveralSource:
        return SeveralSource([config.source() for config in self.sources], same_numbers=self.same_numbers)

    @field_validator("sources")
    @classmethod
    def _nothing_of_the_whole(cls, sources: tuple[AnySource, ...]) -> tuple[AnySource, ...]:
        for number, source in enumerate(sources):
            for name in sorted(OF_THE_WHOLE):
                if getattr(source, name) != type(source).model_fields[name].default:
                    raise ValueError(
                        f"{name} of source {number} belongs to all sources together: set it beside `sources`"
                    )
        return sources

    @field_serializer("sources")
    def _without_the_whole(self, sources: tuple[AnySource, ...]) -> list[dict[str, Any]]:
        return [source.model_dump(exclude=set(OF_THE_WHOLE)) for source in sources]


class SeveralSource(ImageSource):
    """Sources one after the other, their classes united by name."""

    def __init__(self, sources: list[ImageSource], same_numbers: bool) -> None:
        if not same_numbers:
            _check_numbers(sources)
        names = {name for source in sources for name in source.class_names}
        order = sorted(names, key=int if all(map(str.isdecimal, names)) else None)
        label = {name: number for number, name in enumerate(order)}
        self.sources = sources
        self.where = join([source.where for source in sources])
        self.class_names = tuple(order)
        self.labels = np.concatenate([np.array([label[n] for n in s.class_names])[s.labels] for s in sources])
        self.notes = tuple(note for source in sources for note in source.notes)
        self.ends = np.cumsum([len(source) for source in sources])

    def name(self, index: int) -> str:
        """The number of the source, from 0 on, and the image's name in it."""
        number, inner = self._place(index)
        return f"{number}/{self.sources[number].name(inner)}"

    def read(self, index: int) -> bytes:
        number, inner = self._place(index)
        return self.sources[number].read(inner)

    def _digest(self) -> Digest:
        return Digest("several", *self.class_names, *(source.fingerprint for source in self.sources))

    def _place(self, index: int) -> tuple[int, int]:
        number = int(np.searchsorted(self.ends, index, side="right"))
        return number, index - (int(self.ends[number - 1]) if number else 0)


def _check_numbers(sources: list[ImageSource]) -> None:
    numbered = [source for source in sources if all(map(str.isdecimal, source.class_names))]
    for place, one in enumerate(numbered):
        for other in numbered[place + 1 :]:
            if common := sorted(set(one.class_names) & set(other.class_names), key=int):
                raise UserError(
                    f"the classes of '{one.where}' and '{other.where}' are only numbers, and both have {join(common)}: "
                    "whether they mean the same nobody can tell; if they do, set --data.same-numbers true; else give "
                    "the classes names"
                )
