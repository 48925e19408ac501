"""Metrics and pictures to Weights & Biases, or to its files on this machine when offline."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8
from typing_extensions import override

from repae.config import UserError, write_atomic
from repae.track.base import Tracker

if TYPE_CHECKING:
    import wandb


class WandbTracker(Tracker):
    """One wandb run; needs the extra `repae[wandb]`. The identity is kept in `folder`, so a resumed run goes on in it.

    Args:
        folder: the run's folder; wandb's own files go to `folder/wandb/`.
        config: the resolved recipe.
        offline: nothing leaves the machine; `wandb sync` uploads it later.
    """

    def __init__(
        self,
        folder: str | Path,
        project: str = "repae",
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
        offline: bool = False,
    ) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("wandb is not installed; run: pip install 'repae[wandb]'") from None
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._picture = wandb.Image
        self.run: wandb.Run = wandb.init(
            project=project,
            name=name,
            id=_identity(folder / "wandb-id.txt"),
            dir=str(folder),
            config=dict(config or {}),
            mode="offline" if offline else "online",
            resume="allow",
        )
        # wandb drops rows whose own step counter goes back, as it does on resume: `step` is a column of ours.
        self.run.define_metric("*", step_metric="step")

    @override
    def log(self, step: int, row: Mapping[str, float], wall: Mapping[str, float] | None = None) -> None:
        clock = {f"wall/{key}": value for key, value in (wall or {}).items() if key != "time"}
        self.run.log({"step": step, **row, **clock})

    @override
    def image(self, step: int, name: str, array: UInt8[np.ndarray, "h w c"]) -> None:
        self.run.log({"step": step, name: self._picture(array)})

    @override
    def close(self) -> None:
        self.run.finish()


def _identity(path: Path) -> str:
    if not path.exists():
        write_atomic(path, secrets.token_hex(6) + "\n")
    return path.read_text(encoding="utf-8").strip()
