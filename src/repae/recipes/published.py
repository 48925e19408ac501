"""The published runs by name: REPA-E, REPA and plain SiT on ImageNet at 256 px, and the ablations of the paper.

Every recipe says in ``target`` what its origin published. A file, a folder or a weight that it needs and that is not
part of this project is found where the fields say; ``repae train NAME --dry-run`` lists what is missing.
"""

from __future__ import annotations

from typing import Any

from repae.data import FolderConfig
from repae.data.latent_dataset import LatentsConfig
from repae.flow.guidance import Guidance
from repae.flow.samplers import Euler, EulerMaruyama
from repae.flow.time import LogNormalTime
from repae.losses.autoencoder import AutoencoderLossConfig
from repae.models.autoencoders import KLConfig
from repae.models.backbones import LightningBackbone, SiTBackbone
from repae.models.projector import ConvProjectorConfig
from repae.models.teachers.targets import SpatialNormConfig
from repae.models.teachers.timm import TimmTeacherConfig
from repae.recipes.recipe import (
    FromScratch,
    FromWeights,
    LpipsPerceptual,
    PreviewConfig,
    Recipe,
    RecipeEvaluation,
    RuntimeConfig,
)
from repae.runtime.ema import EmaConfig
from repae.runtime.schedules import Until
from repae.training.loop import LoopConfig
from repae.training.method import SelfTeacherConfig
from repae.training.methods import Naive, Repa, RepaE
from repae.training.setup import DiscriminatorConfig, LatentNormConfig

IMAGENET_CLASSES = 1000
EPOCHS_800, EPOCHS_100, EPOCHS_80, EPOCHS_20 = 4_000_000, 500_000, 400_000, 100_000
"""Steps of 256 images that are so many epochs of ImageNet."""

DINOV2_B = TimmTeacherConfig(name="dinov2-b")
DINOV2_L = TimmTeacherConfig(name="dinov2-l")
CLIP_L = TimmTeacherConfig(name="clip-l")
IJEPA_H = TimmTeacherConfig(name="ijepa-h")

PAPER = "REPA-E, arXiv 2504.10483v3"
PROTOCOL = "50,000 images, Euler-Maruyama with 250 steps"
UNGUIDED = f"{PROTOCOL}, no guidance"

SD, IN, VA = "SD-VAE", "IN-VAE", "VA-VAE"
_VAES = {SD: "f8d4", IN: "f16d32", VA: "f16d32"}
_GUIDANCE = {
    SD: Guidance(scale=2.2, low=0.0, high=0.65),
    IN: Guidance(scale=1.8, low=0.0, high=0.825),
    VA: Guidance(scale=1.9, low=0.0, high=0.825),
}
"""Scale and interval of the guided results in REPA-E's README, on which they were tuned."""


def published() -> list[Recipe]:
    """All of them, the runs of 80 epochs first."""
    return [*_joint(), _second_stage(), _lightning(), *_frozen(), *_successors(), *_ablations(), *_components()]


def _joint() -> list[Recipe]:
    def target(where: str, plain: str, guided: str, vae: str) -> str:
        guidance = _GUIDANCE[vae]
        return (
            f"{PAPER}, {where}, 80 epochs: FID {plain} without guidance, {guided} with guidance "
            f"{guidance.scale} on [0, {guidance.high}]; {PROTOCOL}"
        )

    return [
        _repae(
            "repae-sdvae-xl2", "SiT-XL/2", SD, "The paper's main run: SiT-XL/2 and SD-VAE (f8d4), jointly.",
            target("Table 1 and README", "4.07 (sFID 4.60, IS 161.8)", "1.67", SD),
        ),
        _repae(
            "repae-invae-xl1", "SiT-XL/1", IN, "SiT-XL/1 and IN-VAE (f16d32, of ImageNet), jointly.",
            target("README", "4.09", "1.61", IN),
        ),
        _repae(
            "repae-vavae-xl1", "SiT-XL/1", VA, "SiT-XL/1 and VA-VAE (f16d32, itself aligned with DINOv2), jointly.",
            target("README", "4.05", "1.73", VA),
        ),
        _repae(
            "repae-sdvae-xl2-scratch", "SiT-XL/2", SD, "SiT-XL/2 and an f8d4 VAE from random weights, jointly.",
            f"{PAPER}, Table 7, from scratch, 20 / 40 / 80 epochs: FID 14.12 / 7.54 / 4.34; {UNGUIDED}",
            start=FromScratch(), discriminator=DiscriminatorConfig(),
        ),
        *[
            _repae(
                f"repae-{vae.replace('-', '').lower()}-xl1-guide", "SiT-XL/1", vae,
                f"SiT-XL/1 and {vae} with the guide's weight 1.0 of the VAE's alignment; published runs have 1.5.",
                "none: the guide gives no result for this weight, and the published runs use 1.5",
                method=RepaE(vae_align_proj_coeff=1.0),
            )
            for vae in (IN, VA)
        ],
    ]  # fmt: skip


def _second_stage() -> Recipe:
    """The reference's ``train_ldm_only.py``: a fresh SiT with REPA on cached latents of the tuned VA-VAE."""
    guidance = Guidance(scale=2.4, low=0.0, high=0.73)
    return _repa(
        "repa-e2e-vavae-xl1",
        "SiT-XL/1",
        VA,
        "The second stage: a fresh SiT-XL/1 with REPA on cached latents of the VA-VAE that REPA-E has tuned.",
        f"{PAPER}, Table 9, 800 epochs: FID 1.69 (sFID 4.17, IS 219.3) without guidance, 1.12 (sFID 4.09, IS 302.9) "
        f"with guidance {guidance.scale} on [0, {guidance.high}]; {PROTOCOL}, class-balanced labels",
        start=FromWeights(path="pretrained/e2e-vavae/e2e-vavae-400k.pt"),
        latents=LatentsConfig(path="data/latents/e2e-vavae-400k"),
        **{"loop.steps": EPOCHS_800, "evaluation.guidance": guidance},
    )


def _lightning() -> Recipe:
    return _plain(
        "lightning-vavae-xl1",
        "SiT-XL/1",
        VA,
        "LightningDiT-XL/1 on the frozen VA-VAE, without a teacher, with its authors' constants.",
        "LightningDiT, arXiv 2501.01423, 64 epochs: FID 5.14 without guidance, 2.11 with; their loss has a term of the "
        "velocity's direction besides, which this run has not",
        backbone=LightningBackbone.preset("LightningDiT-XL/1"),
        time=LogNormalTime(mean=0.0, std=1.0),
        **{
            "loop.batch_size": 1024,
            "loop.steps": 80_000,
            "optimisers.denoiser.lr": 2e-4,
            "optimisers.denoiser.betas": (0.9, 0.95),
        },
    )


def _frozen() -> list[Recipe]:
    return [
        _repa(
            "repa-sdvae-xl2", "SiT-XL/2", SD, "REPA: SiT-XL/2 aligned with DINOv2-B on the frozen SD-VAE.",
            f"{PAPER}, Table 1, of REPA: FID 19.40 / 11.10 / 7.90 / 5.90 after 20 / 40 / 80 / 800 epochs; {UNGUIDED}",
        ),
        _repa(
            "repa-vavae-xl1", "SiT-XL/1", VA, "REPA: SiT-XL/1 aligned with DINOv2-B on the frozen VA-VAE.",
            f"{PAPER}, Table 8, SiT with REPA on VA-VAE, 80 epochs: FID 4.88; {UNGUIDED}",
        ),
        _plain(
            "sit-sdvae-xl2", "SiT-XL/2", SD, "Plain SiT-XL/2 on the frozen SD-VAE, without a teacher.",
            f"{PAPER}, Table 8, SiT without REPA, 80 epochs: FID 17.20; Table 1, 1400 epochs: 8.61; {UNGUIDED}",
        ),
        _plain(
            "sit-vavae-xl1", "SiT-XL/1", VA, "Plain SiT-XL/1 on the frozen VA-VAE, without a teacher.",
            f"{PAPER}, Table 8, SiT without REPA on VA-VAE, 80 epochs: FID 5.93; {UNGUIDED}",
        ),
        _repa(
            "repa-sdvae-b2", "SiT-B/2", SD, "REPA in the small: SiT-B/2 on the frozen SD-VAE.",
            _after_20("Table 2", "49.5"), **{"loop.steps": EPOCHS_20},
        ),
        _repa(
            "repa-sdvae-l2", "SiT-L/2", SD, "REPA, the ablations' baseline: SiT-L/2 on the frozen SD-VAE.",
            _after_20("Tables 2 to 5", "24.1"), **{"loop.steps": EPOCHS_20},
        ),
    ]  # fmt: skip


def _successors() -> list[Recipe]:
    """What came after REPA on the frozen SD-VAE, as far as it is a switch."""
    return [
        _repa(
            "irepa-sdvae-xl2", "SiT-XL/2", SD,
            "iREPA: REPA with a convolutional projector and teacher tokens normalised over places.",
            "iREPA, arXiv 2512.10794, 20 epochs: FID 16.96, with REPA 19.06; SiT-XL/2, DINOv2-B, no guidance",
            method=Repa(spatial_norm=SpatialNormConfig()),
            **{"backbone.projector": ConvProjectorConfig(), "loop.steps": EPOCHS_20},
        ),
        _repa(
            "haste-sdvae-xl2", "SiT-XL/2", SD,
            "REPA whose alignment ends after 250,000 steps, as HASTE's does; without HASTE's attention maps.",
            "none for this half of it alone; HASTE, arXiv 2505.16792, whole, 100 epochs: FID 5.31, no guidance",
            method=Repa(align_schedule=Until(stop=250_000)), **{"loop.steps": EPOCHS_100},
        ),
        _plain(
            "sra-sdvae-xl2", "SiT-XL/2", SD,
            "SRA: SiT-XL/2 aligned with its own average, block 8 with block 20; no teacher to fetch.",
            "SRA, arXiv 2505.02831, 800 epochs with guidance: FID 1.58, IS 311.4, by a smooth L1 of weight 0.2 "
            "in place of the cosine here",
            method=Repa(self_teacher=SelfTeacherConfig(depth=20, interval=0.2)), **{"loop.steps": EPOCHS_800},
        ),
    ]  # fmt: skip


def _ablations() -> list[Recipe]:
    """Of sizes, autoencoders, teachers and alignment depths."""

    def sit_l2(ending: str, about: str, table: str, fid: str, **changes: Any) -> Recipe:
        return _ablated(f"repae-sdvae-l2-{ending}", "SiT-L/2", SD, about, table, fid, **changes)

    return [
        _ablated("repae-sdvae-b2", "SiT-B/2", SD, "SiT-B/2 and SD-VAE, jointly.", "Table 2", "34.8"),
        _ablated(
            "repae-sdvae-l2", "SiT-L/2", SD, "The ablations' joint run: SiT-L/2 and SD-VAE.", "Tables 2 to 6", "16.3"
        ),
        _ablated("repae-invae-l1", "SiT-L/1", IN, "SiT-L/1 and IN-VAE, jointly.", "Table 4", "12.7"),
        _ablated("repae-vavae-l1", "SiT-L/1", VA, "SiT-L/1 and VA-VAE, jointly.", "Table 4", "11.1"),
        sit_l2("dinov2-l", "Teacher DINOv2-L in place of -B.", "Table 3", "16.0", teachers=(DINOV2_L,)),
        sit_l2("clip-l", "Teacher CLIP-L (OpenAI's).", "Table 3", "23.4", teachers=(CLIP_L,)),
        sit_l2("ijepa-h", "Teacher I-JEPA-H.", "Table 3", "16.5", teachers=(IJEPA_H,)),
        sit_l2("depth6", "Alignment after block 6.", "Table 5", "16.4", **{"backbone.encoder_depth": 6}),
        sit_l2("depth10", "Alignment after block 10.", "Table 5", "16.2", **{"backbone.encoder_depth": 10}),
    ]


def _components() -> list[Recipe]:
    def without(ending: str, fid: str, about: str, **changes: Any) -> Recipe:
        name, result = f"repae-sdvae-l2-no-{ending}", f"{fid}, with everything 16.3"
        return _ablated(name, "SiT-L/2", SD, about, "Table 6", result, **changes)

    return [
        without(
            "stopgrad", "444.1", "No stop-gradient: the diffusion loss reaches the VAE, which collapses.",
            method=Naive(proj_coeff=0.5, vae_align_proj_coeff=1.5),
        ),
        without(
            "norm", "18.1",
            "No batch norm between VAE and SiT: latents are normalised by their first statistics, which then stay.",
            latent_norm=LatentNormConfig(tracking="fixed"),
        ),
        without(
            "gan", "19.2", "No discriminator.",
            discriminator=None, losses=AutoencoderLossConfig(discriminator_weight=0.0),
        ),
    ]  # fmt: skip


def _after_20(table: str, fid: str) -> str:
    return f"{PAPER}, {table}, 20 epochs: FID {fid}; {UNGUIDED}"


def _ablated(name: str, size: str, vae: str, about: str, table: str, fid: str, **changes: Any) -> Recipe:
    return _repae(name, size, vae, about, _after_20(table, fid), **{"loop.steps": EPOCHS_20, **changes})


def _repae(name: str, size: str, vae: str, about: str, target: str, **changes: Any) -> Recipe:
    """The published joint run: L1 + LPIPS + KL + GAN, alignment .5 and 1.5 with DINOv2-B after block 8, three AdamW.

    The discriminator, too, goes on from the weights that its autoencoder was published with.
    """
    joint = _base(name, size, vae, about, target).replace(
        method=RepaE(),
        teachers=(DINOV2_B,),
        losses=AutoencoderLossConfig(),
        perceptual=LpipsPerceptual(),
        discriminator=DiscriminatorConfig(weights=f"{_file(vae)}-discriminator-ckpt.pt"),
    )
    return joint.replace(**changes)


def _repa(name: str, size: str, vae: str, about: str, target: str, **changes: Any) -> Recipe:
    return _base(name, size, vae, about, target).replace(**{"method": Repa(), "teachers": (DINOV2_B,), **changes})


def _plain(name: str, size: str, vae: str, about: str, target: str, **changes: Any) -> Recipe:
    return _base(name, size, vae, about, target).replace(**{"method": Repa(proj_coeff=0.0), **changes})


def _base(name: str, size: str, vae: str, about: str, target: str) -> Recipe:
    """What all published runs share: ImageNet at 256 px, batches of 256, learning rate 1e-4, decay .9999.

    The figures of `evaluation` are those of the reconstruction; a Frechet distance on Inception is not among them.
    The preview is the reference's, whose guidance 4 everywhere is no published setting.
    """
    return Recipe(
        name=name,
        about=about,
        target=target,
        data=FolderConfig(path="data/imagenet/train", resolution=256),
        num_classes=IMAGENET_CLASSES,
        vae=KLConfig.preset(_VAES[vae]),
        start=FromWeights(path=f"{_file(vae)}.pt"),
        backbone=SiTBackbone.preset(size),
        # Averaged statistics trail the live ones, but the published figures were made with them.
        ema=EmaConfig(decay=0.9999, warmup=False, statistics="average"),
        bundle="reference",
        loop=LoopConfig(steps=EPOCHS_80, batch_size=256, log_every=100, checkpoint_every=50_000),
        # bf16 where the reference has fp16: its range is float32's, so no loss scale is needed.
        runtime=RuntimeConfig(device="cuda", precision="bf16", compile=True, tf32=True, workers=4),
        preview=PreviewConfig(
            every=10_000,
            classes=8,
            per_class=8,
            sampler=Euler(steps=50),
            guidance=Guidance(scale=4.0, low=0.0, high=1.0),
        ),
        evaluation=RecipeEvaluation(images=5000, sampler=EulerMaruyama(steps=250), guidance=_GUIDANCE[vae]),
    )


def _file(vae: str) -> str:
    """Where the reference expects an autoencoder's files, up to their endings."""
    kind = vae.replace("-", "").lower()
    return f"pretrained/{kind}/{kind}-{_VAES[vae]}"
