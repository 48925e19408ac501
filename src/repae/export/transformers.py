"""Backbones as models of diffusers, whose code stands in `repae.export.standalone.sit_transformer`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from repae.config import UserError
from repae.models.backbones import Backbone, BackboneConfig, LightningConfig, SiTConfig

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

_CONFIGS: dict[str, type[BackboneConfig]] = {
    "SiTTransformer2DModel": SiTConfig,
    "LightningTransformer2DModel": LightningConfig,
}
"""For each class of that file the sizes of the backbone that it is."""

_NAMES = {
    "input_size": "sample_size",
    "patch_size": "patch_size",
    "in_channels": "in_channels",
    "depth": "num_layers",
    "num_heads": "num_attention_heads",
    "mlp_ratio": "mlp_ratio",
    "num_classes": "num_classes",
    "qk_norm": "qk_norm",
}
"""Fields of a backbone's configuration under the names that models of diffusers use."""


def transformer_of(backbone: Backbone, vae_digest: str) -> ModelMixin:
    """A model of diffusers with the weights of a backbone."""
    # diffusers takes seconds to import.
    from repae.export.standalone import sit_transformer

    config = backbone.config
    name = next(name for name, sizes in _CONFIGS.items() if isinstance(config, sizes))
    model = getattr(sit_transformer, name)(
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        attention_head_dim=config.hidden_size // config.num_heads,
        null_class=config.null_label is not None,
        vae_digest=vae_digest,
    )
    model.load_state_dict(backbone.state_dict())
    return model


def read_backbone_config(config: Mapping[str, Any]) -> BackboneConfig:
    """Sizes of a backbone by the ``config.json`` of such a model; a `UserError` for one of another class."""
    name = config.get("_class_name")
    if name not in _CONFIGS:
        raise UserError(f"the transformer is a {name}; allowed: {', '.join(_CONFIGS)}")
    return _CONFIGS[name](
        hidden_size=config["num_attention_heads"] * config["attention_head_dim"],
        class_dropout_prob=0.1 if config["null_class"] else 0.0,
        **{ours: config[theirs] for ours, theirs in _NAMES.items()},
    )
