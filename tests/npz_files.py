"""Files of images in ADM's layout, written by numpy and not by what is tested."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor


def write_npz(path: str | Path, images: Tensor, labels: Tensor) -> None:
    """`arr_0` `[N, H, W, C]` uint8 and `labels` of images `[N, C, H, W]`."""
    np.savez(path, arr_0=images.permute(0, 2, 3, 1).numpy(), labels=labels.numpy())
