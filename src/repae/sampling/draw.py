"""A long list of images, drawn by any number of processes, killed and gone on with, written while it is drawn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor

from repae.config import UserError
from repae.flow import Autoguidance, Guidance, Path, Sampler
from repae.runtime.background import background, foreground
from repae.runtime.distributed import World
from repae.runtime.precision import Precision
from repae.sampling.files import Output
from repae.sampling.generate import VelocityModel, generate
from repae.track import ProgressBar


class Throughput(NamedTuple):
    """What one process drew: images, images times networks that saw them, and how long it took in seconds."""

    images: int
    evaluations: int
    seconds: float


@dataclass
class Counted:
    """A source that counts how many images its network has seen, each evaluation of each."""

    source: VelocityModel
    evaluations: int = 0

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.source.latent_shape

    @property
    def null_label(self) -> int | None:
        return self.source.null_label

    def velocity(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        self.evaluations += len(x)
        return self.source.velocity(x, t, y)

    def decode(self, x: Tensor) -> Tensor:
        return self.source.decode(x)


def missing_batches(numbers: range, present: Sequence[range], batch_size: int, world: World) -> list[range]:
    """The batches that one process has to draw, in order.

    The images of `numbers` form batches of `batch_size`, whoever draws them and whatever is `present` already, and a
    batch of which any image is missing is drawn whole. Hence which images are drawn together depends on nothing else.
    """
    there = np.zeros(numbers.stop, bool)
    for found in present:
        there[found.start : found.stop] = True
    batches = (numbers[start : start + batch_size] for start in range(0, len(numbers), batch_size))
    # Dealt out among those that are missing, so that what is gone on with is shared evenly too.
    return [batch for batch in batches if not there[batch.start : batch.stop].all()][world.rank :: world.size]


def draw(
    source: VelocityModel,
    labels: Int[Tensor, " n"],
    batches: Sequence[range],
    output: Output,
    *,
    sampler: Sampler,
    path: Path,
    precision: Precision,
    guidance: Guidance | Autoguidance | None = None,
    weak: VelocityModel | None = None,
    seed: int = 0,
    progress: ProgressBar | None = None,
) -> Throughput:
    """Draw some batches of the images of `labels` and hand them to `output`, in the background if they are several.

    Image i is that of `generate`, which says what the other arguments are; `batches` are the numbers of the images to
    draw now (`missing_batches`), out of all `labels`.

    Raises:
        UserError: the images cannot be written; those that were stay.
    """
    counted = Counted(source)
    weaker = None if weak is None else Counted(weak)
    began, done = time.monotonic(), 0
    try:
        with background() if len(batches) > 1 else foreground() as submit:
            for numbers in batches:
                images = generate(
                    counted, labels[numbers.start : numbers.stop], sampler=sampler, path=path, precision=precision,
                    guidance=guidance, weak=weaker, seed=seed, batch_size=len(numbers), first=numbers.start,
                )  # fmt: skip
                output.write(numbers.start, images.numpy(), submit)
                done += len(numbers)
                if progress is not None:
                    seconds = time.monotonic() - began
                    progress.log(done, {}, {"seconds": seconds, "images_per_second": done / seconds})
    except OSError as error:
        raise UserError(
            f"the images could not be written to {output.folder}: {error.strerror or error}; what is there is whole: "
            "make room, and run the same command again to go on"
        ) from error
    evaluations = counted.evaluations + (weaker.evaluations if weaker is not None else 0)
    return Throughput(done, evaluations, time.monotonic() - began)
