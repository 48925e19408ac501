"""A stack of layers as `repae.runtime.parallel` takes it."""

from __future__ import annotations

from torch import nn

from repae.runtime.parallel import Stacked


class Layers(nn.Sequential, Stacked):
    """Its layers are its repeated parts."""

    def repeated_parts(self) -> list[nn.Module]:
        return list(self)
