"""Backbones as models of diffusers: which of our files of code opens which, and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from repae.config import UserError
from repae.models.backbones import Backbone, BackboneConfig, LightningConfig, SiTConfig

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin

STANDALONE = {
    "sit": ("sit_transformer", "SiTTransformer2DModel"),
    "lightning": ("lightning_transformer", "LightningTransformer2DModel"),
}
"""For each kind of backbone the module in `repae.export.standalone`, and the class in it."""

_CONFIGS: dict[str, type[BackboneConfig]] = {"sit": SiTConfig, "lightning": LightningConfig}

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
    config = backbone.config
    module, name = STANDALONE[config.kind]
    fields = {theirs: getattr(config, ours) for ours, theirs in _NAMES.items()}
    model = getattr(import_module(f"repae.export.standalone.{module}"), name)(
        **fields,
        attention_head_dim=config.hidden_size // config.num_heads,
        null_class=config.null_label is not None,
        vae_digest=vae_digest,
    )
    model.load_state_dict(backbone.state_dict())
    return model


def read_backbone_config(config: Mapping[str, Any]) -> BackboneConfig:
    """Sizes of a backbone by the ``config.json`` of such a model.

    Raises:
        UserError: a model of another class.
    """
    kinds = [kind for kind, (_, name) in STANDALONE.items() if name == config.get("_class_name")]
    if not kinds:
        known = ", ".join(name for _, name in STANDALONE.values())
        raise UserError(f"the transformer is a {config.get('_class_name')}; allowed: {known}")
    return _CONFIGS[kinds[0]](
        hidden_size=config["num_attention_heads"] * config["attention_head_dim"],
        class_dropout_prob=0.1 if config["null_class"] else 0.0,
        **{ours: config[theirs] for ours, theirs in _NAMES.items()},
    )
