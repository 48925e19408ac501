"""Any autoencoder of diffusers: from a folder, from the hub, or from its configuration alone."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from repae.config import Config, UserError, one_line, suggest
from repae.models.autoencoders.families import FAMILIES, DiffusersAutoencoder
from repae.models.weight_files import check_coverage

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"

_CLASS = "_class_name"

_FOUR_LEVELS: dict[str, Any] = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}

_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "sd3.5": (
        "stabilityai/stable-diffusion-3.5-large",
        {_CLASS: "AutoencoderKL", **_FOUR_LEVELS, "scaling_factor": 1.5305, "shift_factor": 0.0609},
    ),
    "flux.1": (
        "black-forest-labs/FLUX.1-dev",
        {_CLASS: "AutoencoderKL", **_FOUR_LEVELS, "scaling_factor": 0.3611, "shift_factor": 0.1159},
    ),
    "flux.2": ("black-forest-labs/FLUX.2-dev", {_CLASS: "AutoencoderKLFlux2"}),
    "qwen-image": ("Qwen/Qwen-Image", {_CLASS: "AutoencoderKLQwenImage"}),
}
"""Where each is on the hub, in the folder ``vae``, and what its configuration says beyond diffusers' defaults."""


class DiffusersConfig(Config):
    """Which autoencoder of diffusers; `families.FAMILIES` lists the classes.

    Attributes:
        path: a local folder in diffusers' form, or a name on the hub, such as ``Qwen/Qwen-Image``.
        subfolder: the folder below ``path`` that holds the autoencoder of a whole pipeline, mostly ``vae``.
        architecture: what its config.json says, ``_class_name`` included. A run reads it from ``path`` when it begins
            and keeps it in its recipe, so that it can be opened without ``path``; alone it gives random weights.
    """

    kind: Literal["diffusers"] = "diffusers"
    path: str | None = Field(default=None, min_length=1)
    subfolder: str | None = Field(default=None, min_length=1)
    architecture: dict[str, Any] | None = None

    @field_validator("architecture")
    @classmethod
    def _known_class(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        if value is not None and value.get(_CLASS) not in FAMILIES:
            raise ValueError(f"{_CLASS} is {value.get(_CLASS)!r}; allowed: {', '.join(FAMILIES)}")
        return value

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> DiffusersConfig:
        if self.path is None and self.architecture is None:
            raise ValueError(
                "path and architecture are both missing; give path, a folder in diffusers' form or a name on the hub"
            )
        return self

    @classmethod
    def preset(cls, name: str) -> DiffusersConfig:
        """A published autoencoder by name: ``sd3.5``, ``flux.1``, ``flux.2``, ``qwen-image``."""
        if name not in _PRESETS:
            allowed = ", ".join(_PRESETS)
            raise UserError(f"{name!r} is no autoencoder known by name; allowed: {allowed}{suggest(name, _PRESETS)}")
        path, architecture = _PRESETS[name]
        return cls(path=path, subfolder="vae", architecture=architecture)

    def resolved(self) -> DiffusersConfig:
        """The same with ``architecture``, read from ``path`` where it is not given.

        Raises:
            UserError: there is nothing at ``path``, or no autoencoder that is known here.
        """
        if self.architecture is not None:
            return self
        read = _read_config(self)
        known = _fields(_class(read)) if read.get(_CLASS) in FAMILIES else read
        return self.replace(architecture={name: read[name] for name in read if name == _CLASS or name in known})

    @property
    def quantised(self) -> bool:
        """Whether it has a codebook in place of a posterior."""
        return (self.resolved().architecture or {}).get(_CLASS) == "VQModel"

    @property
    def factor(self) -> int:
        return _factor(json.dumps(self.resolved().architecture, sort_keys=True))

    def build(self, image_channels: int = 3) -> DiffusersAutoencoder:
        """The autoencoder, with random weights.

        Raises:
            UserError: an architecture that cannot be built, or images of other channels than it takes.
        """
        architecture = self.resolved().architecture
        assert architecture is not None
        vae = _built(architecture)
        if vae.image_channels != image_channels:
            raise UserError(
                f"{architecture[_CLASS]} takes images of {vae.image_channels} channels, these have {image_channels}; "
                "choose another autoencoder or, from scratch, set vae.architecture.in_channels and out_channels"
            )
        return vae

    def weights(self) -> dict[str, Tensor]:
        """The published weights at ``path``, for the autoencoder that `build` gives; all of them, in float32.

        Raises:
            UserError: they cannot be had, or do not fit to the last key.
        """
        architecture = self.resolved().architecture
        assert architecture is not None
        if self.path is None:
            raise UserError(
                "vae.path is missing: there are no published weights to start from; give it, or start.kind scratch"
            )
        cls = _class(architecture)
        if (there := _read_config(self).get(_CLASS)) != cls.__name__:
            raise UserError(
                f"{self.path} holds an autoencoder of class {there}, vae.architecture describes an {cls.__name__}; set "
                "vae.architecture to none to take what is there"
            )
        try:
            model, found = cls.from_pretrained(
                self.path,
                **_place(self),
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(_unavailable(self, error)) from error
        shapes = [f"{key} of {tuple(there)} instead of {tuple(own)}" for key, there, own in found["mismatched_keys"]]
        differing = {
            "missing": found["missing_keys"],
            "unexpected": found["unexpected_keys"],
            "of another shape": shapes,
        }
        wrong = [f"{len(keys)} keys {what} ({', '.join(sorted(keys)[:3])})" for what, keys in differing.items() if keys]
        if wrong:
            raise UserError(f"the weights at {self.path} are not whole: {'; '.join(wrong)}; fetch the folder again")
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        with torch.device("meta"):
            complaint = f"{self.path} does not hold the weights of vae.architecture"
            check_coverage(_built(architecture).state_dict(), state, complaint, "give the right folder")
        return state


def _class(architecture: Mapping[str, Any]) -> Any:
    # The package itself takes several seconds to import; its autoencoders take one.
    from diffusers import __version__
    from diffusers.models import autoencoders

    name = architecture[_CLASS]
    cls = getattr(autoencoders, name, None)
    if cls is None:
        raise UserError(f"diffusers {__version__} has no {name}; install a newer one")
    return cls


def _fields(cls: Any) -> list[str]:
    return [name for name in inspect.signature(cls.__init__).parameters if name != "self"]


def _built(architecture: Mapping[str, Any]) -> DiffusersAutoencoder:
    cls = _class(architecture)
    known = _fields(cls)
    for name in architecture:
        if name != _CLASS and name not in known:
            raise UserError(f"vae.architecture.{name} is no field of diffusers' {cls.__name__}{suggest(name, known)}")
    if cls.__name__ == "AutoencoderRAE" and find_spec("transformers") is None:
        raise UserError("AutoencoderRAE needs the package transformers; install it: pip install transformers")
    try:
        model = cls.from_config({name: value for name, value in architecture.items() if name != _CLASS})
    except (ValueError, TypeError, RuntimeError, IndexError, ZeroDivisionError) as error:
        raise UserError(
            f"diffusers cannot build this {cls.__name__}: {one_line(error)}; correct vae.architecture"
        ) from error
    return FAMILIES[cls.__name__](model)


@lru_cache
def _factor(architecture: str) -> int:
    with torch.device("meta"):
        # Only a size is asked for, and on the meta device the weights take no memory.
        return _built(json.loads(architecture)).factor


def _place(config: DiffusersConfig) -> dict[str, Any]:
    return {} if config.subfolder is None else {"subfolder": config.subfolder}


def _read_config(config: DiffusersConfig) -> dict[str, Any]:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    assert config.path is not None
    local = Path(config.path)
    if local.is_dir():
        file = local / (config.subfolder or "") / CONFIG_FILE
        if not file.is_file():
            inner = "; it is the folder of a pipeline: set vae.subfolder to vae" if (local / "vae").is_dir() else ""
            raise UserError(f"{local} holds no autoencoder of diffusers: there is no {file}{inner}")
    try:
        # It reads the file of any class.
        return dict(AutoencoderKL.load_config(config.path, **_place(config)))  # type: ignore[call-overload]
    except (OSError, ValueError) as error:
        raise UserError(_unavailable(config, error)) from error


def _unavailable(config: DiffusersConfig, error: Exception) -> str:
    if Path(config.path or "").is_dir():
        return f"the autoencoder in {config.path} cannot be read: {one_line(error)}; fetch the folder again"
    return (
        f"the autoencoder {config.path!r} is no folder here and cannot be had from the hub ({one_line(error)}); "
        "without a connection, or where its licence must be accepted first, fetch its folder elsewhere "
        f"({CONFIG_FILE} and {WEIGHTS_FILE}) and give vae.path FOLDER, vae.subfolder none"
    )
