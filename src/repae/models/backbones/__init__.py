"""Transformers that predict velocities, behind one interface."""

from repae.models.backbones.base import Backbone, BackboneConfig, BackboneSetup
from repae.models.backbones.sit import SiT, SiTBackbone, SiTConfig

AnyBackbone = SiTBackbone

__all__ = ["AnyBackbone", "Backbone", "BackboneConfig", "BackboneSetup", "SiT", "SiTBackbone", "SiTConfig"]
