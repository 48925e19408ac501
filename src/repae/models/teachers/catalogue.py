"""The published teachers by short name: where their weights are, under which licence, and what is special about them.

Everything else about a teacher (depth, normalisation of pixels, prefix tokens) is read from its timm model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

PIXELS_PER_TOKEN = 16
"""Side of the square of an image that one token stands for unless a grid is asked for (REPA, arXiv 2410.06940)."""

Interpolation = Literal["bicubic", "bilinear"]

_HUB = "hub: timm/{}"
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class Entry:
    """One published teacher.

    Attributes:
        name: the short name.
        model: timm's name of the architecture and, after the dot, of the weights.
        dim: width of a token.
        licence: of the weights.
        where: what to fetch where there is no connection: ``hub: REPOSITORY`` or the authors' own file.
        terms: what must be done before the authors hand out their files; empty where nothing is asked.
        downloads: whether timm fetches the weights by itself.
        interpolation: the filter with which the authors resize, where it is not timm's.
        final_norm: whether the reference takes the tokens after the final norm.
        counts_patches: whether rotary positions are numbers of patches at every grid, as in the authors' code; timm
            stretches them to the native grid.
        options: how the architecture differs from timm's of that name.
    """

    name: str
    model: str
    dim: int = 0
    licence: str = ""
    where: str = ""
    terms: str = ""
    downloads: bool = True
    interpolation: Interpolation | None = None
    final_norm: bool = True
    counts_patches: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def gated(self) -> bool:
        """Whether the authors ask for something before they hand out their files."""
        return bool(self.terms)


def tokens(resolution: int) -> int:
    """Number of tokens of a square image, for every entry: the SiT's of a latent at 1/8 in patches of 2, or 1/16 in 1.

    A patch of 14 sees the image resized to 14/16 of its side for that.
    """
    return (resolution // PIXELS_PER_TOKEN) ** 2


def entry_of(name: str) -> Entry:
    """The entry called ``name``; for any other model of timm, one that adds nothing to what timm says."""
    return CATALOGUE.get(name) or Entry(name, name)


def short_name(name: str) -> str:
    """The catalogue's name of what the reference calls ``dinov2-vit-b``, ``clip-vit-L`` or ``jepa-vit-h``.

    The catalogue's own names, and all others, stay as they are.
    """
    short = name.strip().lower().replace("-vit-", "-")
    short = f"i{short}" if short.startswith("jepa-") else short
    return short if short in CATALOGUE else name.strip()


def table() -> str:
    """The catalogue for people, one line each."""
    head = ("name", "width", "256 px", "512 px", "licence", "gated", "where to get it")
    rows = [head] + [
        (entry.name, entry.dim, tokens(256), tokens(512), entry.licence, "yes" if entry.gated else "no", entry.where)
        for entry in CATALOGUE.values()
    ]
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*cells)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in cells)


def _entry(name: str, model: str, dim: int, licence: str, where: str = "", **more: Any) -> Entry:
    return Entry(name, model, dim, licence, where or _HUB.format(model), **more)


def _dinov2() -> list[Entry]:
    """DINOv2 (arXiv 2304.07193) without and with registers (arXiv 2309.16588); tokens after the final norm."""
    sizes = (("s", "small", 384), ("b", "base", 768), ("l", "large", 1024), ("g", "giant", 1536))
    return [
        _entry(f"dinov2{kind}-{size}", f"vit_{word}_patch14_{registers}dinov2.lvd142m", dim, "Apache-2.0")
        # Registers change tokens but no shape, so the two must not be mistaken for each other.
        for kind, registers in (("", ""), ("reg", "reg4_"))
        for size, word, dim in sizes
    ]


def _dinov3() -> list[Entry]:
    """DINOv3 (arXiv 2508.10104). Its evaluation transform resizes bilinearly."""
    sizes = (("s", "s16", "small", 384), ("b", "b16", "base", 768), ("l", "l16", "large", 1024))
    sizes = (*sizes, ("hplus", "h16plus", "huge_plus", 1280))
    return [
        _entry(
            f"dinov3-{size}",
            f"vit_{word}_patch16_dinov3.lvd1689m",
            dim,
            "DINOv3",
            terms=f"accept the licence on the authors' page of the hub, facebook/dinov3-vit{page}-pretrain-lvd1689m",
            interpolation="bilinear",
        )
        for size, page, word, dim in sizes
    ]


def _siglip2() -> list[Entry]:
    """SigLIP 2 (arXiv 2502.14786), resized bilinearly."""
    sizes = (("b", "base", 768), ("l", "large", 1024), ("so400m", "so400m", 1152))
    return [
        _entry(
            f"siglip2-{size}", f"vit_{word}_patch16_siglip_256.v2_webli", dim, "Apache-2.0", interpolation="bilinear"
        )
        for size, word, dim in sizes
    ]


def _mocov3() -> list[Entry]:
    """MoCo v3 (arXiv 2104.02057), which timm has no weights of. Its small model has 12 heads instead of 6."""
    authors = "https://dl.fbaipublicfiles.com/moco-v3/{0}/{0}.pth.tar"
    files = {
        "s": authors.format("vit-s-300ep"),
        "b": authors.format("vit-b-300ep"),
        "l": "the authors of RCG, arXiv 2312.03701: mocov3_vitl.pth",
    }
    licences = {"s": "CC-BY-NC-4.0", "b": "CC-BY-NC-4.0", "l": "see RCG"}
    heads = {"s": {"num_heads": 12}}
    return [
        _entry(
            f"mocov3-{size}",
            f"vit_{word}_patch16_224",
            dim,
            licences[size],
            files[size],
            downloads=False,
            interpolation="bilinear",
            # What timm says of this architecture belongs to other weights.
            options={"pretrained_cfg_overlay": _IMAGENET, **heads.get(size, {})},
        )
        for size, word, dim in (("s", "small", 384), ("b", "base", 768), ("l", "large", 1024))
    ]


def _perception_encoders() -> list[Entry]:
    """Perception Encoder (arXiv 2504.13181): resized bilinearly."""
    core = (("s", "small_patch16_384", 384), ("b", "base_patch16_224", 768))
    core = (*core, ("l", "large_patch14_336", 1024), ("g", "gigantic_patch14_448", 1536))
    spatial = (("s", "small_patch16_512", 384), ("b", "base_patch16_512", 768))
    spatial = (*spatial, ("l", "large_patch14_448", 1024), ("g", "gigantic_patch14_448", 1536))
    return [
        _entry(
            f"pe-{kind}-{size}",
            f"vit_pe_{kind}_{model}.fb",
            dim,
            "Apache-2.0",
            interpolation="bilinear",
            counts_patches=True,
        )
        for kind, sizes in (("core", core), ("spatial", spatial))
        for size, model, dim in sizes
    ]


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        *_dinov2(),
        _entry("dinov1-b", "vit_base_patch16_224.dino", 768, "Apache-2.0"),
        *_dinov3(),
        _entry(
            "clip-l",
            "vit_large_patch14_clip_quickgelu_224.openai",
            1024,
            "MIT",
            _HUB.format("vit_large_patch14_clip_224.openai"),
            final_norm=False,
        ),
        *_siglip2(),
        _entry("mae-l", "vit_large_patch16_224.mae", 1024, "CC-BY-NC-4.0", final_norm=False),
        _entry(
            "ijepa-h",
            "vit_huge_patch14_gap_224.in1k_ijepa",
            1280,
            "CC-BY-NC-4.0",
            "https://dl.fbaipublicfiles.com/ijepa/IN1K-vit.h.14-300e.pth.tar",
        ),
        *_mocov3(),
        *_perception_encoders(),
    )
}  # fmt: skip
"""Every published teacher by its short name.

CLIP (arXiv 2103.00020) and MAE (arXiv 2111.06377) give their tokens before the final norm, as in the reference: CLIP's
norm was trained on the class token alone, and MAE's belongs to its decoder's input. `TimmTeacherConfig.final_norm`
chooses otherwise.
"""
