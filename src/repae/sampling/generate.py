"""Images from noise: one function from labels to pixels, the same image for any batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from repae.config import UserError
from repae.flow import UNGUIDED, Autoguidance, Guidance, Network, Path, Sampler, VelocityField, autoguide, guide
from repae.runtime.precision import Precision
from repae.runtime.seeds import seed_of

CPU = torch.device("cpu")

ImageNoise = Callable[[range, int | None], Tensor]
"""`noise(numbers, step)`: standard normal noise, float32 on the CPU, a row for each image of these numbers.

What they start from (`step` None), or what a stochastic sampler adds at a step.
"""


@runtime_checkable
class VelocityModel(Protocol):
    """A velocity field and its decoder, which images are drawn from; `repae.models.bundle.Bundle` is one.

    `latent_shape` is (c, h, w); `null_label` the class that stands for none, or None where there is none.
    """

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    @property
    def null_label(self) -> int | None: ...

    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor: ...

    def decode(self, x: Tensor) -> Tensor: ...


def generate(
    source: VelocityModel,
    labels: Int[Tensor, " n"],
    *,
    sampler: Sampler,
    path: Path,
    precision: Precision,
    guidance: Guidance | Autoguidance | None = None,
    weak: VelocityModel | None = None,
    seed: int = 0,
    batch_size: int = 256,
    first: int = 0,
    noise: ImageNoise | None = None,
) -> UInt8[Tensor, "n c h w"]:
    """One image for each label, on the CPU, 0..255.

    Image i starts from noise that depends on (seed, `first` + i) only, and a stochastic sampler's noise on that and the
    step: batch size, number of images and kind of device change no bit of either.

    Args:
        source: velocity field and decoder, on `precision.device`.
        path: the path that the velocity field was trained on.
        precision: of the velocity field; the latents are decoded in float32.
        guidance: classifier-free guidance or autoguidance; none by default.
        weak: the source whose velocity autoguidance leads away from, on the same device and the same latents.
        batch_size: images at once; guidance doubles it inside the network.
        first: number of the first image, to draw a long list of images in parts.
        noise: of the images, in place of their own; `seed` says nothing then.

    Raises:
        UserError: no labels, a batch size below 1, or guidance without a null class.
    """
    if len(labels) == 0 or batch_size < 1:
        raise UserError(f"{len(labels)} labels in batches of {batch_size}: at least 1 of each is needed")
    device, guidance = precision.device, guidance or UNGUIDED
    noise, parts = noise or own_noise(seed, source.latent_shape), []
    for start in range(0, len(labels), batch_size):
        y = labels[start : start + batch_size].to(device)
        numbers = range(first + start, first + start + len(y))

        # The default binds this round's numbers, which the next round replaces.
        def added(step: int, like: Tensor, numbers: range = numbers) -> Tensor:
            return _sent(noise(numbers, step), like.device)

        x = _sent(noise(numbers, None), device)
        field = _field(source, weak, y, guidance, precision)
        with torch.no_grad():
            parts.append(source.decode(sampler.run(field, x, added, path, guidance.breaks)).cpu())
    return torch.cat(parts)


def _field(
    source: VelocityModel,
    weak: VelocityModel | None,
    y: Tensor,
    guidance: Guidance | Autoguidance,
    precision: Precision,
) -> VelocityField:
    if isinstance(guidance, Autoguidance):
        assert weak is not None, "autoguidance needs a weaker source"
        return autoguide(_network(source, precision), _network(weak, precision), y, guidance)
    return guide(_network(source, precision), y, source.null_label, guidance)


def _network(source: VelocityModel, precision: Precision) -> Network:
    def network(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        with precision.autocast():
            # At once: what comes next are differences of velocities, which half precision would round away.
            return source.velocity(x, t, y).float()

    return network


def _sent(noise: Tensor, device: torch.device) -> Tensor:
    # Pinned, so that nobody waits until the device has computed what was asked of it before.
    return noise.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else noise.to(device)


def own_noise(seed: int, shape: tuple[int, ...]) -> ImageNoise:
    """Every image has the noise of its own number: `image_noise`, and `step_noise` at a step."""
    return lambda numbers, step: _noise(seed, numbers, step, shape)


def chosen_noise(seed: int, chosen: Sequence[int], shape: tuple[int, ...]) -> ImageNoise:
    """Image i has the noise of number `chosen[i]`: the same seeds again, as often and in whatever order one likes."""
    return lambda numbers, step: _noise(seed, [chosen[number] for number in numbers], step, shape)


def _noise(seed: int, numbers: Iterable[int], step: int | None, shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
    return image_noise(seed, numbers, shape) if step is None else step_noise(seed, numbers, step, shape)


def image_noise(seed: int, numbers: Iterable[int], shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
    """The standard normal noise that images of these numbers start from, float32 on the CPU."""
    return _normal([(seed, "image", number) for number in numbers], shape)


def step_noise(seed: int, numbers: Iterable[int], step: int, shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
    """The standard normal noise of one step of a stochastic sampler, float32 on the CPU."""
    return _normal([(seed, "image", number, step) for number in numbers], shape)


def _normal(keys: Sequence[tuple[int | str, ...]], shape: tuple[int, ...]) -> Float[Tensor, "b *shape"]:
    """A row for each key, what `torch.randn` gives with `generator(CPU, *key)`, by one generator seeded anew."""
    rows, source = torch.empty(len(keys), *shape), torch.Generator(CPU)
    for row, key in zip(rows, keys):
        # Row by row: drawn as one batch, an image's noise would depend on its neighbours.
        row.normal_(generator=source.manual_seed(seed_of(*key)))
    return rows
