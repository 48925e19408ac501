"""Pretrained teachers: any plain vision transformer of timm, by its name on the hub or from a local file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pydantic import AfterValidator, Field, PositiveInt
from torch import Tensor, nn

from repae.config import Config, UserError, one_line, suggest
from repae.models.teachers.base import Teacher
from repae.models.teachers.catalogue import (
    CATALOGUE,
    PIXELS_PER_TOKEN,
    Entry,
    Interpolation,
    entry_of,
    short_name,
)
from repae.models.teachers.files import load_weights
from repae.models.weight_files import check_there


class TimmTeacherConfig(Config):
    """Which vision transformer, with which weights.

    Attributes:
        name: of the catalogue (`repae teachers`), such as ``dinov2-b``; the reference's name for it, ``dinov2-vit-b``;
            or any plain vision transformer of timm with its tag, ``vit_base_patch14_dinov2.lvd142m``.
        weights: a local file (safetensors, or a ``.pth`` that holds nothing but tensors), in timm's keys or in the
            authors' own layout. None takes them from the hub, or its cache.
        grid: tokens along one side. None gives one token per 16 pixels of the image.
        final_norm: whether tokens are taken after the transformer's final norm. None is the reference's choice for
            names of the catalogue (no for ``clip-l`` and ``mae-l``, else yes), and yes for any other model.
        interpolation: the filter of the resize. None is the authors' for names of the catalogue, else timm's.
    """

    kind: Literal["timm"] = "timm"
    name: Annotated[str, Field(min_length=1), AfterValidator(short_name)]
    weights: str | None = None
    grid: PositiveInt | None = None
    final_norm: bool | None = None
    interpolation: Interpolation | None = None


class TimmTeacher(Teacher):
    """Patch tokens of a timm vision transformer, without class token and registers.

    They are taken after the final norm, or before it where the configuration or the catalogue says so (CLIP's and
    MAE's, as in the reference).

    The whole image is resized, with the model's own interpolation and antialiased, so that the transformer's patches
    form the grid asked for: 256 pixels become 224 for a patch of 14 and a grid of 16. Then it is normalised with the
    model's own mean and standard deviation. Grey images are repeated to three channels.

    Args:
        config: which model.
        load: False leaves the initial weights and asks neither hub nor file: for sizes only, also on the meta device.

    Attributes:
        final_norm: whether the tokens have passed the final norm.

    Raises:
        UserError: no such model, no plain transformer, weights that cannot be had or do not fit to the last key.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmTeacherConfig, *, load: bool = True) -> None:
        super().__init__()
        self.config = config
        self.name = config.name
        entry = entry_of(config.name)
        fetch = load and config.weights is None
        if fetch and not entry.downloads:
            raise UserError(
                f"teacher {self.name!r} cannot be had from the hub; "
                f"fetch {entry.where} and give the teacher that file: weights=PATH"
            )
        if load and config.weights is not None:
            check_there(Path(config.weights))
        network, dynamic = _network(entry, pretrained=fetch)
        self.patch = _patch_size(network, self.name)
        facts: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        self._fixed_grid = None if dynamic else int(facts["input_size"][-1]) // self.patch
        if not dynamic and config.grid not in (None, self._fixed_grid):
            network, _ = _network(entry, pretrained=fetch, img_size=(config.grid or 0) * self.patch)
            self._fixed_grid = config.grid
        if load and config.weights is not None:
            load_weights(network, Path(config.weights), self.name)
        self.final_norm = entry.final_norm if config.final_norm is None else config.final_norm
        if not self.final_norm:
            # forward_features always ends with this norm, so leaving it out means replacing it.
            network.norm = nn.Identity()
        if entry.counts_patches:
            network.rope.ref_feat_shape = None  # type: ignore[union-attr]
        self.network = network
        self.dim = int(network.num_features)  # type: ignore[arg-type]
        self._prefix = int(network.num_prefix_tokens)  # type: ignore[arg-type]
        self.interpolation = config.interpolation or entry.interpolation or str(facts["interpolation"])
        if self.interpolation not in get_args(Interpolation):
            raise UserError(
                f"teacher {self.name!r} wants {self.interpolation} interpolation; "
                f"only {' and '.join(get_args(Interpolation))} are supported, set the teacher's interpolation to one"
            )
        # Facts about the model and no weights: files in the authors' layout have no such key.
        self.register_buffer("mean", torch.tensor(facts["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts["std"]).view(-1, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def tokens(self, resolution: int) -> int:
        return self._grid(resolution) ** 2

    def input_size(self, resolution: int) -> int:
        """Side in pixels of what the transformer sees of an image with sides of ``resolution`` pixels."""
        return self._grid(resolution) * self.patch

    @torch.no_grad()
    def forward(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
        """Patch tokens in float32, row by row from the top left corner; computed in the precision of the context."""
        tokens = self.network.forward_features(self.preprocess(images))[:, self._prefix :]  # type: ignore[operator]
        # One pooled vector would broadcast against all tokens without an error.
        expected = (len(images), self.tokens(images.shape[-1]), self.dim)
        if tuple(tokens.shape) != expected:
            raise UserError(
                f"teacher {self.name!r} gives features of shape {tuple(tokens.shape)}, not one token per patch, "
                f"{expected}; choose a plain vision transformer"
            )
        return tokens.float()

    @torch.no_grad()
    def class_token(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The class token after the final norm, in float32; a `UserError` where the transformer has none."""
        if self._prefix < 1:
            raise UserError(f"timm model {self.name!r} has no class token; use the mean of its patch tokens")
        return self.network.forward_features(self.preprocess(images))[:, 0].float()  # type: ignore[operator]

    def preprocess(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b 3 s s"]:
        _, channels, height, width = images.shape
        if channels not in (1, 3) or height != width:
            raise UserError(
                f"teacher {self.name} takes square images with 1 or 3 channels, these are "
                f"{channels} x {height} x {width} (channels, height, width)"
            )
        # Bicubic overshoots at edges; eight-bit images, from which these models learnt, cannot.
        return (self._resized(images.float().expand(-1, 3, -1, -1) / 255).clamp(0, 1) - self.mean) / self.std

    def features(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b d m n"]]:
        """The patch tokens as one map, of images in [-1, 1]; differentiable in the images.

        Unlike what `forward` sees, pixels beyond the range are not cut off: they are what has to learn.
        """
        grid = self._grid(images.shape[-1])
        pixels = self._resized((images.expand(-1, 3, -1, -1) + 1) / 2)
        tokens = self.network.forward_features((pixels - self.mean) / self.std)[:, self._prefix :]  # type: ignore[operator]
        return [tokens.transpose(1, 2).unflatten(2, (grid, grid))]

    def _resized(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 s s"]:
        size = self.input_size(pixels.shape[-1])
        if size == pixels.shape[-1]:
            return pixels
        # The whole image and no crop: a teacher's token must stand for the place that a denoiser's token stands for.
        return F.interpolate(pixels, (size, size), mode=self.interpolation, align_corners=False, antialias=True)

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


def _network(entry: Entry, *, pretrained: bool, **options: Any) -> tuple[nn.Module, bool]:
    """The transformer without its classifier, and whether it takes images of any size."""
    import timm

    if ":" not in entry.model and not timm.is_model(entry.model):
        known = [*CATALOGUE, *timm.list_models(pretrained=True), *timm.list_models()]
        raise UserError(
            f"there is no teacher {entry.name!r}: `repae teachers` lists the names, and timm knows no such model either"
            f"{suggest(entry.name, known)}"
        )
    options = {**entry.options, **options}
    try:
        return _created(entry, pretrained, dynamic_img_size=True, **options), True
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        return _created(entry, pretrained, **options), False


def _created(entry: Entry, pretrained: bool, **options: Any) -> nn.Module:
    import timm

    if not pretrained:
        return timm.create_model(entry.model, num_classes=0, **options)
    try:
        # With its own classifier timm demands every key; without one it forgives missing ones.
        network = timm.create_model(entry.model, pretrained=True, **options)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(_unavailable(entry, error)) from error
    network.reset_classifier(0)  # type: ignore[operator]
    return network


def _unavailable(entry: Entry, error: Exception) -> str:
    """Why the hub gives no weights, and the exact thing to do about it."""
    from huggingface_hub.errors import GatedRepoError

    file = f"a local file: weights=PATH of {entry.name}'s model.safetensors or .pth, fetched elsewhere"
    if entry.where:
        file += f" ({entry.where})"
    if isinstance(error, GatedRepoError):
        terms = entry.terms or "accept its licence on its page of the hub"
        return (
            f"the weights of teacher {entry.name!r} are handed out to those who have accepted their licence: {terms}, "
            f"then log in with `hf auth login`; or give the teacher {file}"
        )
    return (
        f"the pretrained weights of teacher {entry.name!r} cannot be had from the hub ({one_line(error)}); "
        f"without a connection, give the teacher {file}"
    )


def _patch_size(network: nn.Module, name: str) -> int:
    patch = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    sides = {patch} if isinstance(patch, int) else set(patch or ())
    prefix = getattr(network, "num_prefix_tokens", None)
    facts: Any = getattr(network, "pretrained_cfg", {})
    if len(sides) != 1 or not isinstance(prefix, int) or (facts.get("input_size") or (3,))[0] != 3:
        raise UserError(
            f"teacher {name!r} gives no plain grid of patch tokens of RGB images; choose a vision transformer, "
            "such as 'vit_base_patch14_dinov2.lvd142m'"
        )
    return int(sides.pop())
