"""Pretrained teachers: any plain vision transformer of timm, by its name on the hub or from a local file."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import Field, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from repae.config import Config, UserError, suggest
from repae.models.teachers.base import Teacher

PIXELS_PER_TOKEN = 16
"""Side of the square of an image that one token stands for unless a grid is asked for (REPA, arXiv 2410.06940)."""

_INTERPOLATIONS = ("bicubic", "bilinear")
_NO_FILE = "there is no weights file {}; give the teacher the path of an existing one"


class TimmTeacherConfig(Config):
    """Which vision transformer, with which weights.

    Attributes:
        name: a model of timm, with its tag, such as ``vit_base_patch14_dinov2.lvd142m``.
        weights: a local file (safetensors, or a ``.pth`` that holds nothing but tensors), in timm's keys or those that
            timm converts (DINOv2's, CLIP's, MAE's and others' own). None takes them from the hub, or its cache.
        grid: tokens along one side. None gives one token per 16 pixels of the image.
    """

    kind: Literal["timm"] = "timm"
    name: str = Field(min_length=1)
    weights: str | None = None
    grid: PositiveInt | None = None


class TimmTeacher(Teacher):
    """Patch tokens of a timm vision transformer, after its final norm, without class token and registers.

    The whole image is resized, with the model's own interpolation and antialiased, so that the transformer's patches
    form the grid asked for: 256 pixels become 224 for a patch of 14 and a grid of 16. Then it is normalised with the
    model's own mean and standard deviation. Grey images are repeated to three channels.

    Args:
        config: which model.
        load: False leaves the initial weights and asks neither hub nor file: for sizes only, also on the meta device.

    Raises:
        UserError: no such model, no plain transformer, weights that cannot be had or do not fit to the last key.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmTeacherConfig, *, load: bool = True) -> None:
        super().__init__()
        self.config = config
        self.name = config.name
        if load and config.weights is not None and not Path(config.weights).exists():
            raise UserError(_NO_FILE.format(config.weights))  # before a second goes into building the network
        network, dynamic = _network(config, pretrained=load and config.weights is None)
        self.patch = _patch_size(network, config.name)
        self._fixed_grid = None if dynamic else _native_grid(network, self.patch)
        if not dynamic and config.grid not in (None, self._fixed_grid):
            side = (config.grid or 0) * self.patch
            network, _ = _network(config, pretrained=load and config.weights is None, img_size=side)
            self._fixed_grid = config.grid
        if load and config.weights is not None:
            _load(network, Path(config.weights), config.name)
        self.network = network
        self.dim = int(network.num_features)  # type: ignore[arg-type]
        self._prefix = int(network.num_prefix_tokens)  # type: ignore[arg-type]
        facts: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        self.interpolation = str(facts["interpolation"])
        if self.interpolation not in _INTERPOLATIONS:
            raise UserError(
                f"timm model {config.name!r} wants {self.interpolation} interpolation; "
                f"only {' and '.join(_INTERPOLATIONS)} are supported, choose another teacher"
            )
        self.register_buffer("mean", torch.tensor(facts["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts["std"]).view(-1, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def tokens(self, resolution: int) -> int:
        """The square of the grid's side; see `TimmTeacherConfig.grid`."""
        return self._grid(resolution) ** 2

    def input_size(self, resolution: int) -> int:
        """Side in pixels of what the transformer sees of an image with sides of ``resolution`` pixels."""
        return self._grid(resolution) * self.patch

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Patch tokens in float32, row by row from the top left corner; computed in the precision of the context."""
        tokens = self.network.forward_features(self.preprocess(images))[:, self._prefix :]  # type: ignore[operator]
        expected = (len(images), self.tokens(images.shape[-1]), self.dim)
        if tuple(tokens.shape) != expected:
            raise UserError(
                f"timm model {self.name!r} gives features of shape {tuple(tokens.shape)}, not one token per patch, "
                f"{expected}; choose a plain vision transformer"
            )
        return tokens.float()

    @torch.no_grad()
    def class_token(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The class token after the final norm, in float32.

        Raises:
            UserError: the transformer has none.
        """
        if self._prefix < 1:
            raise UserError(f"timm model {self.name!r} has no class token; use the mean of its patch tokens")
        return self.network.forward_features(self.preprocess(images))[:, 0].float()  # type: ignore[operator]

    def preprocess(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        """What the transformer sees of images 0..255."""
        _, channels, height, width = images.shape
        if channels not in (1, 3) or height != width:
            raise UserError(
                f"teacher {self.name} takes square images with 1 or 3 channels, these are "
                f"{channels} x {height} x {width} (channels, height, width)"
            )
        pixels = images.float().expand(-1, 3, -1, -1) / 255
        size = self.input_size(height)
        if size != height:
            pixels = F.interpolate(pixels, (size, size), mode=self.interpolation, align_corners=False, antialias=True)
            # Bicubic overshoots at edges; eight-bit images, from which these models learnt, cannot.
            pixels = pixels.clamp(0, 1)
        return (pixels - self.mean) / self.std

    def _grid(self, resolution: int) -> int:
        if self.config.grid is not None:
            return self.config.grid
        if self._fixed_grid is not None:
            return self._fixed_grid
        if resolution % PIXELS_PER_TOKEN:
            raise UserError(
                f"teacher {self.name} gives one token per {PIXELS_PER_TOKEN} pixels, and {resolution} is no multiple "
                "of that; set the teacher's grid to the number of tokens wanted along one side"
            )
        return resolution // PIXELS_PER_TOKEN


def _network(config: TimmTeacherConfig, *, pretrained: bool, **options: Any) -> tuple[nn.Module, bool]:
    """The transformer without its classifier, and whether it takes images of any size."""
    import timm

    if ":" not in config.name and not timm.is_model(config.name):
        known = timm.list_models(pretrained=True) + timm.list_models()
        raise UserError(f"timm knows no model {config.name!r}{suggest(config.name, known)}")
    try:
        return _created(config.name, pretrained, dynamic_img_size=True, **options), True
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        return _created(config.name, pretrained, **options), False


def _created(name: str, pretrained: bool, **options: Any) -> nn.Module:
    import timm

    if not pretrained:
        return timm.create_model(name, num_classes=0, **options)
    try:
        # With its own classifier timm demands every key; without one it forgives missing ones.
        network = timm.create_model(name, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"the pretrained weights of timm model {name!r} cannot be had from the hub ({reason[0]}); "
            f"without a connection, give the teacher a local file: weights=PATH of {name}'s model.safetensors or .pth, "
            "fetched elsewhere"
        ) from error
    network.reset_classifier(0)  # type: ignore[operator]
    return network


def _patch_size(network: nn.Module, name: str) -> int:
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    sides = {patch} if isinstance(patch, int) else set(patch or ())
    prefix = getattr(network, "num_prefix_tokens", None)
    facts: Any = getattr(network, "pretrained_cfg", {})
    if len(sides) != 1 or not isinstance(prefix, int) or (facts.get("input_size") or (3,))[0] != 3:
        raise UserError(
            f"timm model {name!r} gives no plain grid of patch tokens of RGB images; choose a vision transformer, "
            "such as 'vit_base_patch14_dinov2.lvd142m'"
        )
    return int(sides.pop())


def _native_grid(network: nn.Module, patch: int) -> int:
    facts: Any = network.pretrained_cfg
    return int(facts["input_size"][-1]) // patch


def _load(network: nn.Module, path: Path, name: str) -> None:
    """Every key of the file into the network and every key of the network from the file, classifiers apart."""
    from timm.models import clean_state_dict

    state = clean_state_dict(_read(path))
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        # On a file of some other model timm's conversion breaks down; the comparison below then says what is wrong.
        with suppress(RuntimeError, KeyError, ValueError, AttributeError, TypeError, IndexError):
            state = convert(state, network)
    facts: Any = network.pretrained_cfg
    classifier = facts.get("classifier") or ()
    heads = tuple(f"{head}." for head in ([classifier] if isinstance(classifier, str) else classifier))
    own = network.state_dict()
    state = {key: tensor for key, tensor in state.items() if key in own or not key.startswith(heads)}
    faults = {
        "missing": own.keys() - state.keys(),
        "unexpected": state.keys() - own.keys(),
        "of another shape": {
            key for key in own.keys() & state.keys() if own[key].shape != getattr(state[key], "shape", None)
        },
    }
    if any(faults.values()):
        found = "; ".join(f"{len(keys)} keys {what}: {_few(keys)}" for what, keys in faults.items() if keys)
        raise UserError(f"{path} does not hold timm model {name!r}: {found}; give the file of this model")
    network.load_state_dict(state)


def _read(path: Path) -> dict[str, Any]:
    """The state dict in a file, out of the usual wrappings."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(_NO_FILE.format(path)) from None
    except pickle.UnpicklingError:
        raise UserError(
            f"{path} holds more than tensors, or is no weights file; convert it to safetensors where you trust it"
        ) from None
    except (OSError, SafetensorError, RuntimeError, EOFError) as error:
        raise UserError(f"the weights file {path} cannot be read: {error}") from None
    for wrapping in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapping), dict):
            state = state[wrapping]
    if not isinstance(state, dict):
        raise UserError(f"{path} holds a {type(state).__name__}, not the named tensors of a model")
    return state


def _few(keys: set[str]) -> str:
    names = sorted(keys)
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
