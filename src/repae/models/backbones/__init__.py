"""Transformers that predict velocities, behind one interface; each file registers its kind."""

from typing import Annotated

from repae.models.backbones.base import BACKBONES, Backbone, BackboneConfig, BackboneSetup
from repae.models.backbones.lightning import LightningBackbone, LightningConfig, LightningDiT
from repae.models.backbones.sit import SiT, SiTBackbone, SiTConfig

AnyBackbone = Annotated[BackboneSetup, BACKBONES]

__all__ = [
    "AnyBackbone",
    "Backbone",
    "BackboneConfig",
    "BackboneSetup",
    "LightningBackbone",
    "LightningConfig",
    "LightningDiT",
    "SiT",
    "SiTBackbone",
    "SiTConfig",
]
