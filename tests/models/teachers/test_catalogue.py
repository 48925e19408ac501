"""The catalogue: names, sizes, tokens and preprocessing of every published teacher, held against published facts."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from errors import refused
from huggingface_hub.errors import GatedRepoError
from timm.models import get_pretrained_cfg

from repae.config import UserError
from repae.models import extract_visual_features, load_teachers
from repae.models.teachers.catalogue import CATALOGUE, short_name, table, tokens
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
PUBLISHED = {
    # family: mean and std of pixels 0..1, filter, patch, tokens before the patches; where the authors say so
    "dinov1": (*IMAGENET, "bicubic", 16, 1),  # facebookresearch/dino, eval_linear.py: Resize(interpolation=3)
    "dinov2": (*IMAGENET, "bicubic", 14, 1),  # facebookresearch/dinov2, dinov2/data/transforms.py
    "dinov2reg": (*IMAGENET, "bicubic", 14, 5),
    "dinov3": (*IMAGENET, "bilinear", 16, 5),  # facebookresearch/dinov3, README, make_transform
    "mocov3": (*IMAGENET, "bilinear", 16, 1),  # facebookresearch/moco-v3, main_lincls.py: torchvision's default
    "mae": (*IMAGENET, "bicubic", 16, 1),  # facebookresearch/mae, util/datasets.py
    "ijepa": (*IMAGENET, "bicubic", 14, 0),  # the reference of REPA: bicubic to 224
    "clip": (*CLIP, "bicubic", 14, 1),  # openai/CLIP, clip/clip.py, _transform
    "siglip2": (*HALF, "bilinear", 16, 0),  # google/siglip2-base-patch16-256, preprocessor_config.json
    "pe-core": (*HALF, "bilinear", None, None),  # facebookresearch/perception_models, core/vision_encoder/transforms.py
    "pe-spatial": (*HALF, "bilinear", None, None),
}
PATCHES = {"s": (16, 1), "b": (16, 1), "l": (14, 1)}  # arXiv 2504.13181, Table 1; the largest has no class token
PE_GIANT = {"pe-core": (14, 0), "pe-spatial": (14, 0)}


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_teacher_gives_one_token_per_patch_of_the_sit(name: str) -> None:
    """At full size: as many tokens as the SiT has at 256 and 512 px, of the width listed, none of them a class."""
    entry, family, size = CATALOGUE[name], *name.rsplit("-", 1)
    mean, std, filter_, patch, prefix = PUBLISHED[family]
    if patch is None:
        patch, prefix = PE_GIANT[family] if size == "g" else PATCHES[size]
    with torch.device("meta"):
        made = TimmTeacher(TimmTeacherConfig(name=name), load=False)
        images = {side: torch.empty(1, 3, side, side, dtype=torch.uint8) for side in (256, 512)}
    made.network.blocks = made.network.blocks[:1]  # all blocks are alike
    assert made.dim == entry.dim and made.patch == patch and made.network.num_prefix_tokens == prefix
    assert made.final_norm == (name not in ("clip-l", "mae-l"))
    # The pixel levels are buffers, on the meta device here; timm's own record of them is what they are made of.
    facts = made.network.pretrained_cfg
    assert (tuple(facts["mean"]), tuple(facts["std"]), made.interpolation) == (mean, std, filter_)
    for side, batch in images.items():
        assert made.tokens(side) == tokens(side) == (side // 16) ** 2
        assert made.input_size(side) == side // 16 * patch
        seen = made.preprocess(batch)
        assert seen.shape == (1, 3, side // 16 * patch, side // 16 * patch)
        (features,) = extract_visual_features([made], batch)
        assert features.shape == (1, tokens(side), entry.dim)


def test_the_architectures_that_names_do_not_tell() -> None:
    """MoCo v3's small model has 12 heads; OpenAI's CLIP has its quick GELU."""
    with torch.device("meta"):
        made = {
            name: TimmTeacher(TimmTeacherConfig(name=name), load=False) for name in ("mocov3-s", "mocov3-b", "clip-l")
        }
    assert made["mocov3-s"].network.blocks[0].attn.num_heads == 12
    assert made["mocov3-b"].network.blocks[0].attn.num_heads == 12
    assert type(made["clip-l"].network.blocks[0].mlp.act).__name__ == "QuickGELU"


def test_where_to_get_it_is_where_timm_gets_it() -> None:
    """Repositories and files of the table are those that timm fetches, so what is fetched elsewhere is the same."""
    for entry in CATALOGUE.values():
        known = get_pretrained_cfg(entry.model)
        assert known is not None, entry.model
        if entry.downloads:
            assert entry.where == (f"hub: {known.hf_hub_id}" if known.hf_hub_id else known.url)
        else:
            assert entry.name.startswith("mocov3")
        assert entry.licence and (not entry.name.startswith("dinov3") or entry.gated)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("dinov2-vit-b", "dinov2-b"),
        ("dinov2-vit-g", "dinov2-g"),
        ("dinov2reg-vit-l", "dinov2reg-l"),
        ("dinov1-vit-b", "dinov1-b"),
        ("mocov3-vit-s", "mocov3-s"),
        ("clip-vit-L", "clip-l"),
        ("jepa-vit-h", "ijepa-h"),
        ("mae-vit-l", "mae-l"),
        (" siglip2-so400m", "siglip2-so400m"),
        ("vit_base_patch14_dinov2.lvd142m", "vit_base_patch14_dinov2.lvd142m"),
    ],
)
def test_the_reference_s_names_are_understood(theirs: str, ours: str) -> None:
    """One teacher has one name in every recipe and report, whatever it was called."""
    assert short_name(theirs) == ours == TimmTeacherConfig(name=theirs).name


def test_registers_are_never_slipped_in() -> None:
    """`dinov2` is the one without registers, as in the paper; the guide loads the other one under that name."""
    with torch.device("meta"):
        plain, registers = (
            TimmTeacher(TimmTeacherConfig(name=name), load=False) for name in ("dinov2-vit-b", "dinov2reg-vit-b")
        )
    assert plain.network.reg_token is None and registers.network.reg_token.shape[1] == 4


def test_the_table_lists_everything() -> None:
    """One line each: name, width, tokens, licence, gated or not, where to get it."""
    head, *lines = table().splitlines()
    assert head.split("  ")[0] == "name" and len(lines) == len(CATALOGUE)
    for line, entry in zip(lines, CATALOGUE.values(), strict=True):
        cells = re.split(r"  +", line)
        gated = "yes" if entry.gated else "no"
        assert cells == [entry.name, str(entry.dim), "256", "1024", entry.licence, gated, entry.where]


def test_gated_weights_say_what_to_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The licence's page, the login, and the way around: a local file."""

    class Gated(GatedRepoError):
        def __init__(self) -> None:
            OSError.__init__(self, "401")

    def refuse(name: str, pretrained: bool = False, **options: object) -> None:
        raise Gated

    monkeypatch.setattr(timm, "create_model", refuse)
    with refused(UserError, "licence", "facebook/dinov3-vitb16-pretrain-lvd1689m", "`hf auth login`", "weights=PATH"):
        load_teachers("dinov3-b")


def test_what_no_hub_has_says_where_to_fetch_it() -> None:
    """MoCo v3, by the reference's name and in a list with others."""
    with refused(UserError, "'mocov3-s'", "hub", "fetch https://", "vit-s-300ep.pth.tar"):
        load_teachers("mocov3-vit-s,dinov2-vit-b")
    with refused(UserError, "'dinov2-vit-c'", "`repae teachers`", "did you mean 'dinov2-s'"):
        load_teachers("dinov2-vit-c")
