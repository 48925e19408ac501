"""Metrics and pictures as TensorBoard events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from typing_extensions import override

from repae.config import UserError
from repae.track.base import Tracker

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardTracker(Tracker):
    """Writes event files into a folder; clock figures under `wall/`. The file is opened at the first record.

    After a resume, TensorBoard shows nothing of the steps that were done twice but their second time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._writer: SummaryWriter | None = None
        self._purge: int | None = None

    @override
    def log(self, step: int, row: Mapping[str, float], wall: Mapping[str, float] | None = None) -> None:
        writer = self._open()
        for key, value in row.items():
            writer.add_scalar(key, value, step)
        for key, value in (wall or {}).items():
            if key != "time":
                writer.add_scalar(f"wall/{key}", value, step)

    @override
    def image(self, step: int, name: str, array: UInt8[np.ndarray, "h w c"]) -> None:
        self._open().add_image(name, array, step, dataformats="HWC")

    @override
    def resume(self, step: int) -> None:
        self.close()
        # TensorBoard hides what earlier files say from this step on.
        self._purge = step + 1

    @override
    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> SummaryWriter:
        if self._writer is None:
            try:
                from torch.utils.tensorboard.writer import SummaryWriter
            except ImportError:
                raise UserError("tensorboard is not installed; run: pip install tensorboard") from None
            self._writer = SummaryWriter(str(self.folder), purge_step=self._purge, flush_secs=10)
        return self._writer
