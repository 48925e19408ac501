"""The one contract between a training loop and whatever records it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8


class Tracker(ABC):
    """Receives metrics and pictures of one run, on its main process only."""

    @abstractmethod
    def log(self, step: int, row: Mapping[str, float], wall: Mapping[str, float] | None = None) -> None:
        """Record metrics after optimiser step `step` (counted from 1).

        `row`: what the mathematics gave, equal in every repetition of the run. `wall`: what the clock gave (`time` in
        Unix seconds, `seconds` since the loop began, `images_per_second`), never equal twice.
        """

    def image(self, step: int, name: str, array: UInt8[np.ndarray, "h w c"]) -> None:  # noqa: B027
        """Record a picture; trackers without pictures ignore it."""

    def resume(self, step: int) -> None:  # noqa: B027
        """Forget what was recorded after `step`: the run goes on from there."""

    def close(self) -> None:  # noqa: B027
        """Finish what is still being written."""
