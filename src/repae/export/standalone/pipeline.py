"""Class-conditional images from a SiT and its autoencoder, with diffusers alone.

    from diffusers import DiffusionPipeline
    pipe = DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
    images = pipe(class_labels=[3, 7], seed=0).images

Image i depends on (seed, i) only, whatever the batch, and is the image that ``repae sample`` draws.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from PIL import Image
from torch import Tensor

LAST_STEP_SIZE = 0.04
SAMPLERS = ("euler", "heun", "euler-maruyama")
LAST_STEPS = ("mean", "tweedie", "euler")
PATHS = ("linear", "cosine")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Field = Callable[[Tensor, float, float], Tensor]
"""``field(x, t, start)``: velocity at time t, guided if ``start`` lies in the guidance interval."""


class SiTPipeline(DiffusionPipeline):
    """Noise at t = 1 to data at t = 0 along the velocity of a SiT, then through the decoder.

    Args:
        transformer: the SiT; its latents are normalised.
        vae: its autoencoder, whose configuration holds ``latents_mean`` and ``latents_std``.
        path: ``linear`` or ``cosine``, the path that the SiT was trained on.
        sampler, steps, guidance_scale, guidance_low, guidance_high, guide_by_end, last, precision: what a call does by
            default.
        id2label: names of the classes.
    """

    model_cpu_offload_seq = "transformer->vae"

    def __init__(
        self,
        transformer: ModelMixin,
        vae: ModelMixin,
        path: str = "linear",
        sampler: str = "euler",
        steps: int = 50,
        guidance_scale: float = 1.0,
        guidance_low: float = 0.0,
        guidance_high: float = 1.0,
        guide_by_end: bool = False,
        last: str = "mean",
        precision: str = "fp32",
        id2label: dict[str, str] | None = None,
    ) -> None:
        super().__init__()
        among("path", path, PATHS)
        self.register_modules(transformer=transformer, vae=vae)
        self.register_to_config(
            path=path, sampler=sampler, steps=steps, guidance_scale=guidance_scale, guidance_low=guidance_low,
            guidance_high=guidance_high, guide_by_end=guide_by_end, last=last, precision=precision,
            id2label=id2label,
        )  # fmt: skip

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | str | list[int | str] | Tensor,
        seed: int = 0,
        sampler: str | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_low: float | None = None,
        guidance_high: float | None = None,
        guide_by_end: bool | None = None,
        last: str | None = None,
        precision: str | None = None,
        batch_size: int = 256,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """One image for each label.

        Args:
            class_labels: numbers or names of classes.
            seed: of all noise.
            sampler: ``euler`` or ``heun`` for the probability-flow ODE, ``euler-maruyama`` for the SDE.
            num_inference_steps: steps of the sampler.
            guidance_scale: of classifier-free guidance on all channels; 1 is none.
            guidance_low, guidance_high: the closed interval of times in which it acts.
            guide_by_end: Heun's corrector is guided by the time at which it is evaluated, not by its step's start.
            last: Euler-Maruyama's last step: ``mean``, ``tweedie`` or ``euler``.
            precision: of the transformer's products: ``fp32``, ``bf16`` or ``fp16``; latents are decoded as the
                autoencoder is stored.
            batch_size: images at a time; it changes no image.
            output_type: ``pil``; ``np``, uint8 ``[N, H, W, C]``; ``pt``, uint8 ``[N, C, H, W]``; or ``latent``, which
                is normalised.

        Raises:
            ValueError: a label, sampler or setting that does not exist.
        """
        given = {
            "sampler": sampler, "steps": num_inference_steps, "guidance_scale": guidance_scale,
            "guidance_low": guidance_low, "guidance_high": guidance_high, "guide_by_end": guide_by_end, "last": last,
            "precision": precision,
        }  # fmt: skip
        settings = {name: self.config[name] if value is None else value for name, value in given.items()}
        among("sampler", settings["sampler"], SAMPLERS)
        among("last", settings["last"], LAST_STEPS)
        among("precision", settings["precision"], tuple(PRECISIONS))
        among("output_type", output_type, ("pil", "np", "pt", "latent"))
        labels = self.labels(class_labels)
        drawn = []
        bar: Any = self.progress_bar
        for start in bar(range(0, len(labels), batch_size)):
            y = labels[start : start + batch_size].to(self._execution_device)
            latents = self.draw(y, range(start, start + len(y)), seed, settings)
            drawn.append(latents if output_type == "latent" else self.decode(latents).cpu())
        images = presented(torch.cat(drawn), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]

    def labels(self, given: int | str | list[int | str] | Tensor) -> Tensor:
        """Numbers of classes that are given as numbers or by name."""
        items = given.tolist() if isinstance(given, Tensor) else given if isinstance(given, list) else [given]
        by_name = {name: int(number) for number, name in (self.config["id2label"] or {}).items()}
        numbers = [by_name.get(item, item) if isinstance(item, str) else int(item) for item in items]
        classes = self.transformer.config["num_classes"]
        wrong = [number for number in numbers if not isinstance(number, int) or not 0 <= number < classes]
        if wrong or not numbers:
            names = ", ".join(map(repr, list(by_name)[:10])) + (", ..." if len(by_name) > 10 else "")
            raise ValueError(
                f"class_labels holds {wrong or 'nothing'}; allowed: 0 to {classes - 1}, or by name: {names}"
            )
        return torch.tensor(numbers)

    def draw(self, labels: Tensor, numbers: range, seed: int, settings: dict[str, Any]) -> Tensor:
        """Normalised latents of the images with these numbers, float32."""
        config = self.transformer.config
        shape = (config["in_channels"], config["sample_size"], config["sample_size"])
        # A generator for each image: what it is must not depend on the batch it is drawn in.
        x = torch.stack([noise(shape, seed, "image", i) for i in numbers]).to(labels.device)
        field = self.guided(labels, settings)

        def fresh(step: int) -> Tensor:
            return torch.stack([noise(shape, seed, "image", i, step) for i in numbers]).to(labels.device)

        if settings["sampler"] == "euler-maruyama":
            end = euler_maruyama(field, x, settings["steps"], self.config["path"], fresh, settings["last"])
        else:
            guide_by_end = settings["guide_by_end"] if settings["sampler"] == "heun" else None
            end = ode(field, x, settings["steps"], guide_by_end)
        return end.float()

    def guided(self, labels: Tensor, settings: dict[str, Any]) -> Field:
        """The velocity field for these labels, with guidance on its interval."""
        scale, low, high = (settings[f"guidance_{name}"] for name in ("scale", "low", "high"))
        config = self.transformer.config
        if scale < 1 or (scale > 1 and not config["null_class"]):
            raise ValueError(f"guidance_scale is {scale}; at least 1 is allowed, and only 1 without a null class")
        dtype = PRECISIONS[settings["precision"]]
        nobody = torch.full_like(labels, config["num_classes"])

        def network(x: Tensor, t: float, y: Tensor) -> Tensor:
            times = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
            half = dtype != torch.float32 and x.device.type != "mps"
            with torch.autocast(x.device.type, dtype, cache_enabled=False) if half else nullcontext():
                return self.transformer(x.to(self.transformer.dtype), times, y, return_dict=False)[0].float()

        def field(x: Tensor, t: float, start: float) -> Tensor:
            if not (scale > 1 and low <= start <= high):
                return network(x, t, labels)
            pair = network(torch.cat([x, x]), t, torch.cat([labels, nobody])).to(widest(x.device))
            conditional, null = pair.chunk(2)
            return null + scale * (conditional - null)

        return field

    def normalise(self, latents: Tensor) -> Tensor:
        """The autoencoder's latents as the transformer sees them."""
        mean, std = self.statistics(latents)
        return (latents - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        """Images, uint8 ``[B, C, H, W]``, of normalised latents."""
        mean, std = self.statistics(latents)
        raw = latents * std + mean
        images = self.vae.decode(raw.to(self.vae.dtype), return_dict=False)[0]
        return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, std = (like.new_tensor(config[name])[None, :, None, None] for name in ("latents_mean", "latents_std"))
        return mean, std


def noise(shape: tuple[int, ...], *key: int | str) -> Tensor:
    """Standard normal noise, float32 on the CPU, as a function of a key only (BLAKE2b)."""
    seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big")
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def ode(field: Field, x: Tensor, steps: int, guide_by_end: bool | None = None) -> Tensor:
    """Euler's method on ``steps`` equal steps; Heun's, but for the last step, where ``guide_by_end`` is not None."""
    now = x.to(widest(x.device))
    times = torch.linspace(1, 0, steps + 1, dtype=torch.float64).tolist()
    for t, t_next in pairwise(times):
        slope = field(now.to(x.dtype), t, t).to(now.dtype)
        if guide_by_end is not None and t_next > 0:
            ahead = now + (t_next - t) * slope
            slope = (slope + field(ahead.to(x.dtype), t_next, t_next if guide_by_end else t).to(now.dtype)) / 2
        now = now + (t_next - t) * slope
    return now


def euler_maruyama(
    field: Field, x: Tensor, steps: int, path: str, fresh: Callable[[int], Tensor], last: str = "mean"
) -> Tensor:
    """Euler-Maruyama for the reverse SDE with w(t) = 2 t from 1 to .04, then one step without noise to 0."""
    if steps < 2:
        raise ValueError(f"num_inference_steps is {steps}; Euler-Maruyama needs at least 2")
    now = x.to(widest(x.device))
    times = torch.linspace(1, LAST_STEP_SIZE, steps, dtype=torch.float64).tolist()
    for index, (t, t_next) in enumerate(pairwise(times)):
        v = field(now.to(x.dtype), t, t).to(now.dtype)
        diffusion = math.sqrt(2 * t * (t - t_next)) * fresh(index).to(now)
        now = now + (t_next - t) * drift(v, now, t, path) + diffusion
    t = LAST_STEP_SIZE
    v = field(now.to(x.dtype), t, t).to(now.dtype)
    if last == "mean":
        return now - t * drift(v, now, t, path)
    if last == "euler":
        return now - t * v
    alpha, sigma, d_alpha, d_sigma = coefficients(t, path)
    return (d_sigma * now - sigma * v) / (alpha * d_sigma - sigma * d_alpha)


def drift(v: Tensor, x: Tensor, t: float, path: str) -> Tensor:
    """v - w score / 2 with w = 2 t and the score of the marginal density."""
    alpha, sigma, d_alpha, d_sigma = coefficients(t, path)
    eps = (alpha * v - d_alpha * x) / (alpha * d_sigma - sigma * d_alpha)
    # The score is -eps / sigma, so minus w / 2 times the score is plus t * eps / sigma.
    return v + t * eps / sigma


def coefficients(t: float, path: str) -> tuple[float, float, float, float]:
    """alpha, sigma and their derivatives: x_t = alpha data + sigma noise."""
    if path == "linear":
        return 1 - t, t, -1.0, 1.0
    half = math.pi / 2
    alpha, sigma = math.sin(half * (1 - t)), math.sin(half * t)
    return alpha, sigma, -half * sigma, half * alpha


def widest(device: torch.device) -> torch.dtype:
    """The dtype in which steps are added up: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def among(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; allowed: {', '.join(allowed)}")


def presented(images: Tensor, output_type: str) -> Any:
    """Images, or latents as they are, in the form that was asked for."""
    if output_type in ("pt", "latent"):
        return images
    pixels = images.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return pixels
    return [Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture) for picture in pixels]
