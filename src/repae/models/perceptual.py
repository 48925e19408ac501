"""The pretrained networks in whose features images are compared: LPIPS, and ConvNeXt-S.

They see images in [-1, 1], 1 or 3 channels, convert them by themselves and once, and stay frozen and in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from repae.config import UserError, one_line
from repae.models.weight_files import check_coverage, fit, read_weights

VGG_NAME = "vgg16.tv_in1k"
CONVNEXT_NAME = "convnext_small.fb_in1k"
"""timm's names on the hub. VGG16's weights there are torchvision's, which LPIPS was made with."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_CONVNEXT_SIDE = 224
_REMEDY = "give the right file"


class _Trunk(NamedTuple):
    """A backbone of LPIPS: its name for people, its layers as torchvision numbers them, and those that are compared."""

    name: str
    layers: list[nn.Module]
    compared: tuple[int, ...]
    widths: tuple[int, ...]


def _vgg16() -> _Trunk:
    widths = (64, 128, 256, 512, 512)
    layers: list[nn.Module] = []
    channels = 3
    for width, convolutions in zip(widths, (2, 2, 3, 3, 3)):
        for _ in range(convolutions):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return _Trunk("VGG16", layers, (3, 8, 15, 22, 29), widths)


def _alexnet() -> _Trunk:
    widths = (64, 192, 384, 256, 256)
    layers = [
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True),
    ]  # fmt: skip
    return _Trunk("AlexNet", layers, (1, 4, 7, 9, 11), widths)


LpipsNet = Literal["vgg", "alex"]
_TRUNKS: dict[LpipsNet, Callable[[], _Trunk]] = {"vgg": _vgg16, "alex": _alexnet}


class FrozenNetwork(nn.Module):
    """A frozen network in eval mode, whatever mode is asked for. ``bf16`` halves its memory and costs digits."""

    def __init__(self, *, bf16: bool) -> None:
        super().__init__()
        self.bf16 = bf16

    def train(self, mode: bool = True) -> FrozenNetwork:
        return super().train(False)

    def _precision(self, images: Tensor) -> AbstractContextManager[Any]:
        if not self.bf16:
            return nullcontext()
        # No cache of cast weights: the pass without a graph would leave one without gradients to the pass with one.
        return torch.autocast(images.device.type, torch.bfloat16, cache_enabled=False)


class LpipsNetwork(FrozenNetwork):
    """The features of LPIPS v0.1 (arXiv 1801.03924) and the weights of their channels; `losses.perceptual.lpips`
    compares them, in the training's loss and in the evaluation.

    The package lpips agrees to 1e-6, and serves here as the place of those weights only. As a network it gives the
    distance in bfloat16 under autocast, takes weights from torchvision alone, and draws all of VGG16 at random first,
    its classifier included.

    Args:
        weights: a file in torchvision's or timm's names; None takes `VGG_NAME` from the hub or its cache.
        linear: LPIPS's own weights (``vgg.pth``); None takes those of the package, the very file that the reference
            downloads.
        net: the backbone, VGG16 up to relu5_3 or AlexNet up to relu5, which has no weights on the hub.
        bf16: compute the features in bfloat16.
        load: False leaves initial weights and reads nothing, for sizes only.

    Raises:
        UserError: weights that cannot be had or do not fit to the last key.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        weights: Path | None = None,
        linear: Path | None = None,
        *,
        net: LpipsNet = "vgg",
        bf16: bool = False,
        load: bool = True,
    ) -> None:
        super().__init__(bf16=bf16)
        trunk = _TRUNKS[net]()
        self.compared = trunk.compared
        # What follows the last layer that is compared is left out, and the numbers are still torchvision's.
        self.layers = nn.ModuleList(trunk.layers[: trunk.compared[-1] + 1])
        self.linear = nn.ParameterList(torch.ones(width) for width in trunk.widths)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(-1, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(_SCALE).view(-1, 1, 1), persistent=False)
        if load:
            self._load_layers(weights, f"weights of LPIPS's {trunk.name}")
            self._load_linear(linear or bundled_linear(net))
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Five maps, after the ReLU, of images in [-1, 1] whose sides are 16 pixels (AlexNet: 32) or more."""
        maps: list[Tensor] = []
        with self._precision(images):
            # [-1, 1] is what LPIPS expects: the usual map from [0, 1], applied to it, would give [-3, 1].
            x = (images.expand(-1, 3, -1, -1) - self.shift) / self.scale
            for number, layer in enumerate(self.layers):
                x = layer(x)
                if number in self.compared:
                    maps.append(x)
        return maps

    def _load_layers(self, path: Path | None, what: str) -> None:
        state = _from_hub(VGG_NAME, "perceptual.vgg") if path is None else read_weights(path, what)
        prefix = "features."
        state = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        fit(self.layers, state, f"{what}: {path or VGG_NAME} does not hold them", _REMEDY)

    def _load_linear(self, path: Path) -> None:
        what = "LPIPS's linear layers"
        names = [f"lin{layer}.model.1.weight" for layer in range(len(self.linear))]
        own = {name: weights[None, :, None, None] for name, weights in zip(names, self.linear)}
        state = read_weights(path, what)
        check_coverage(own, state, f"{what}: {path} does not hold them", _REMEDY)
        self.linear.load_state_dict({str(layer): state[name].flatten() for layer, name in enumerate(names)})


class ConvNextLogits(FrozenNetwork):
    """A ConvNeXt's logits of images resized to 224 pixels (arXiv 2201.03545), as MaskGIT-like tokenizers compare them.

    Args:
        weights: a local file of timm's model; None takes it from the hub or its cache.
        name: the model, with its tag.
        bf16: compute in bfloat16.

    Raises:
        UserError: weights that cannot be had or do not fit to the last key.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path | None = None, name: str = CONVNEXT_NAME, *, bf16: bool = False) -> None:
        super().__init__(bf16=bf16)
        import timm

        self.network = timm.create_model(name, pretrained=False)
        facts: Any = self.network.pretrained_cfg
        self.register_buffer("mean", torch.tensor(facts["mean"]).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(facts["std"]).view(-1, 1, 1), persistent=False)
        state = _from_hub(name, "perceptual.convnext") if weights is None else read_weights(weights, name)
        fit(self.network, state, f"{name}: {weights or 'the hub'} does not hold its weights", _REMEDY)
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b classes"]:
        with self._precision(images):
            pixels = (images.expand(-1, 3, -1, -1) + 1) / 2
            if pixels.shape[-2:] != (_CONVNEXT_SIDE, _CONVNEXT_SIDE):
                size = (_CONVNEXT_SIDE, _CONVNEXT_SIDE)
                pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
            return self.network((pixels - self.mean) / self.std)


def bundled_linear(net: LpipsNet = "vgg") -> Path:
    """LPIPS's linear layers, version 0.1, inside the package lpips."""
    found = find_spec("lpips")
    assert found is not None and found.submodule_search_locations, "the package lpips is a dependency"
    return Path(found.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"


def _from_hub(name: str, field: str) -> dict[str, Tensor]:
    from timm.models import get_pretrained_cfg, load_state_dict_from_hf

    facts = get_pretrained_cfg(name)
    assert facts is not None and facts.hf_hub_id, name
    try:
        return dict(load_state_dict_from_hf(facts.hf_hub_id, weights_only=True))
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the weights of {name} cannot be had from the hub ({one_line(error)}); without a connection, fetch "
            f"{facts.hf_hub_id}'s model.safetensors elsewhere and give {field} FILE"
        ) from error
