"""What the configurations of sources share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from repae.data.images import ImagesConfig
from repae.data.remote import is_url


class SourceConfig(ImagesConfig):
    """Images with classes of their own, or all taken as one class.

    Attributes:
        labels: "given": the classes that the source has; "none": one class `all`, to train without classes.
    """

    labels: Literal["given", "none"] = "given"

    def missing(self) -> Iterator[str]:
        """A local path that is not there."""
        if not is_url(self.path) and not Path(self.path).expanduser().exists():
            yield f"data: there is nothing at {self.path}; put the images there, or say where they are with --data PATH"
