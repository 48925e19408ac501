"""The endless stream: what each step shows, whoever asks, from whatever step, with however many helpers."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from errors import refused
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from repae.config import UserError
from repae.data import Batch, Dataset, DigitsConfig, FolderConfig, Latents, Loader
from repae.runtime.distributed import World


class Numbers(Dataset):
    """Images whose pixels are their index: any mix-up shows."""

    def __init__(self, size: int, flip: bool = False, block: int | None = None) -> None:
        self.channels, self.resolution, self.flip, self.block = 1, 2, flip, block
        self.class_names = ("even", "odd")
        self.labels = torch.arange(size) % 2
        self.broken: dict[int, str] = {}

    @property
    def fingerprint(self) -> str:
        return str(len(self))

    def batch(self, indices: torch.Tensor, flips: torch.Tensor | None = None) -> Batch:
        images = (indices % 256).to(torch.uint8)[:, None, None, None] * torch.tensor([1, 0], dtype=torch.uint8)
        images = images.expand(-1, 1, 2, 2)
        if flips is not None:
            images = torch.where(flips[:, None, None, None], images.flip(-1), images)
        return Batch(images.contiguous(), self.labels[indices], indices)


def take(loader: Loader, count: int) -> list[Batch]:
    return list(itertools.islice(loader, count))


def indices(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x[:3], y[:3], strict=True)
    )


@settings(max_examples=15)
@given(
    size=st.integers(1, 60), batch_size=st.integers(1, 50), seed=st.integers(0, 9), epochs=st.integers(1, 4),
    block=st.one_of(st.none(), st.integers(1, 9)),
)  # fmt: skip
def test_every_epoch_shows_every_image_once(
    size: int, batch_size: int, seed: int, epochs: int, block: int | None
) -> None:
    """Protects against lost remainders: batches run over the ends of epochs, and are full for sets smaller than one."""
    batches = take(Loader(Numbers(size, block=block), batch_size, seed=seed), -(-size * epochs // batch_size))
    assert all(len(batch.images) == batch_size for batch in batches)
    stream = indices(batches)
    for epoch in range(epochs):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@settings(max_examples=15)
@given(
    size=st.integers(1, 100), world=st.sampled_from([1, 2, 3, 8]), micros=st.sampled_from([1, 2, 4]),
    share=st.integers(1, 4), start=st.integers(0, 50), flip=st.booleans(),
)  # fmt: skip
def test_shares_are_disjoint_and_cover(size: int, world: int, micros: int, share: int, start: int, flip: bool) -> None:
    """Protects equality of one process and several, of one micro-batch and several: put together in the order of
    `Share`, the shares are the global batches, images and flips included."""
    dataset, batch_size = Numbers(size, flip), share * world * micros
    whole = take(Loader(dataset, batch_size, seed=1, start_step=start), 3)
    ranks = [
        take(
            Loader(dataset, batch_size, seed=1, start_step=start, share_count=micros, world=World(rank, world, rank)),
            3 * micros,
        )
        for rank in range(world)
    ]
    assert all(len(batch.images) == share for batches in ranks for batch in batches)
    for step, expected in enumerate(whole):
        parts = [ranks[rank][step * micros + micro] for micro in range(micros) for rank in range(world)]
        joined = Batch(*(torch.cat(list(column)) for column in list(zip(*parts, strict=True))[:3]))
        assert same([joined], [expected])


@settings(max_examples=25)
@given(
    size=st.integers(1, 100), world=st.sampled_from([1, 2, 3, 8]), share=st.integers(1, 4), cut=st.integers(0, 60),
    block=st.one_of(st.none(), st.integers(1, 9)), seed=st.integers(0, 9),
)  # fmt: skip
def test_whatever_the_world_and_wherever_it_resumes_each_epoch_is_whole(
    size: int, world: int, share: int, cut: int, block: int | None, seed: int
) -> None:
    """Protects an epoch divided among processes and over a stop: what all ranks saw before step `cut` and what they see
    from there on, in the plain and in the block-wise order, are whole epochs, each image once."""
    dataset, batch_size = Numbers(size, block=block), share * world
    steps = cut + -(-2 * size // batch_size) + 1

    def seen(start: int, count: int) -> list[int]:
        ranks = [
            take(Loader(dataset, batch_size, seed=seed, start_step=start, world=World(rank, world, rank)), count)
            for rank in range(world)
        ]
        return [index for step in range(count) for batches in ranks for index in batches[step].indices.tolist()]

    stream = seen(0, cut) + seen(cut, steps - cut)
    for epoch in range(len(stream) // size):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


@settings(max_examples=15)
@given(
    size=st.integers(1, 100), batch_size=st.sampled_from([4, 8, 20]), cut=st.integers(0, 30),
    micros=st.sampled_from([1, 2, 4]), flip=st.booleans(),
)  # fmt: skip
def test_a_resumed_stream_is_the_uninterrupted_one(
    size: int, batch_size: int, cut: int, micros: int, flip: bool
) -> None:
    """Protects resuming: from step n on the loader shows what the other one shows from step n on."""
    whole = take(Loader(Numbers(size, flip), batch_size, seed=5, share_count=micros), (cut + 3) * micros)
    rest = take(Loader(Numbers(size, flip), batch_size, seed=5, share_count=micros, start_step=cut), 3 * micros)
    assert same(rest, whole[cut * micros :])


@settings(max_examples=15)
@given(one=st.integers(0, 10**6), other=st.integers(0, 10**6))
def test_seeds_shuffle_differently(one: int, other: int) -> None:
    """Protects the seed: it decides the order."""
    assume(one != other)
    streams = [indices(take(Loader(Numbers(200), 200, seed=seed), 1)) for seed in (one, other)]
    assert streams[0] != streams[1]


def test_labels_and_pixels_belong_to_the_indices() -> None:
    """Protects pairing: image, label and index of a row are of one sample; each iteration starts again."""
    loader = Loader(Numbers(50), 20, seed=0)
    for batch in take(loader, 10):
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices)
        assert torch.equal(batch.labels, batch.indices % 2)
    assert same(take(loader, 3), take(loader, 3))


def test_only_sets_that_may_be_flipped_are() -> None:
    """Protects digits from being mirrored, and the share of mirrored images where it is asked for."""
    plain, flipped = (take(Loader(Numbers(200, flip), 200, seed=0), 20) for flip in (False, True))
    assert not any(batch.images[:, 0, 0, 1].any() for batch in plain)
    assert indices(plain) == indices(flipped)
    mirrored = [torch.cat([b.images[:, 0, 0, 1] for b in flipped]) > 0, torch.cat([b.indices for b in flipped]) > 0]
    assert abs(mirrored[0][mirrored[1]].double().mean().item() - 0.5) < 0.05


def test_a_flip_belongs_to_image_and_epoch() -> None:
    """Protects purity: another batch size at the same seed flips the same images in the same epochs."""

    def seen(batch_size: int) -> Counter[tuple[int, int, bool]]:
        stream = take(Loader(Numbers(30, flip=True), batch_size, seed=3), 120 // batch_size)
        rows = [(int(i), bool(image[0, 0, 1])) for b in stream for i, image in zip(b.indices, b.images, strict=True)]
        return Counter((place // 30, *row) for place, row in enumerate(rows))

    assert seen(4) == seen(20) == seen(120)


@pytest.mark.parametrize(
    "options, facts",
    [
        ({"batch_size": 10, "share_count": 3}, ["10 images", "1 process", "3 micro-batch", "multiple of 3", "9 or 12"]),
        ({"batch_size": 6, "share_count": 2, "world": World(0, 8, 0)}, ["6 images", "8 process", "such as 16"]),
        ({"batch_size": 0}, ["batch size", 0, "at least 1"]),
        ({"batch_size": 4, "share_count": 0}, ["number of micro-batches", 0, "at least 1"]),
        ({"batch_size": 4, "workers": -1}, ["number of workers", -1, "at least 0"]),
        ({"batch_size": 4, "start_step": -1}, ["start step", -1, "at least 0"]),
    ],
)  # fmt: skip
def test_impossible_batches_are_refused_in_words(options: dict[str, object], facts: list[object]) -> None:
    """Protects the user: nothing is rounded down in silence; a size that works is named."""
    with refused(UserError, *facts):
        Loader(Numbers(5), seed=0, **options)


def test_digits_come_in_batches() -> None:
    """Protects the fast path of data in memory."""
    digits = DigitsConfig().open()
    loader = Loader(digits, 64, seed=0)
    (batch,) = take(loader, 1)
    assert torch.equal(batch.images, digits.images[batch.indices])
    assert torch.equal(batch.labels, digits.labels[batch.indices])
    assert loader.dataset.broken == {}


Folder = Callable[[dict[str, tuple[int, int]]], Path]


@pytest.fixture
def photos(folder: Folder) -> Path:
    """Twelve pictures in three classes, two of them broken."""
    root = folder({f"{name}/{i}.png": (20 + i, 17) for name in "abc" for i in range(4)})
    (root / "a" / "2.png").write_bytes(b"")
    (root / "c" / "3.png").write_bytes(b"no picture")
    return root


def test_workers_change_nothing(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Protects determinism: any number of workers, the same bytes, the same broken files known and told of once each
    in this process, and torch's own random state untouched."""
    config = FolderConfig(path=str(photos), resolution=16, flip=True)
    state = torch.random.get_rng_state()
    streams, broken = [], []
    for workers in (0, 1, 2):
        caplog.clear()
        loader = Loader(config.open(), 10, seed=2, share_count=2, workers=workers, start_step=3)
        streams.append(take(loader, 8))
        broken.append(sorted(loader.dataset.broken.items()))
        assert len(caplog.records) == 2
    assert same(streams[0], streams[1])
    assert same(streams[0], streams[2])
    assert broken[0] == broken[1] == broken[2] == [(2, "the file is empty"), (11, "it is no JPEG, PNG or WebP image")]
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(batch.images.device.type == "cpu" and not batch.images.is_pinned() for batch in streams[2])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_refusal_in_a_worker_is_one_line(photos: Path, workers: int) -> None:
    """Protects the user from a worker's traceback."""
    loader = Loader(FolderConfig(path=str(photos), resolution=16, on_error="raise").open(), 12, seed=0, workers=workers)
    with refused(UserError, "'c/3.png'", "no JPEG", "repair or remove it", "--data.on-error skip") as error:
        take(loader, 3)
    assert "\n" not in str(error.value)


def test_workers_leave_signals_to_this_process(photos: Path) -> None:
    """Protects a clean stop: Ctrl-C and SIGTERM, which reach a whole process group, do not end the workers; the end
    of the iteration does."""
    before = children()  # of earlier tests, still on their way out
    stream = iter(Loader(FolderConfig(path=str(photos), resolution=16).open(), 6, seed=0, workers=2))
    for _ in range(2):  # they take turns, so now both are up
        next(stream)
    workers = [pid for pid in children() - before if ignores(pid)]
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
    for _ in range(20):
        next(stream)
    stream.close()
    assert not any(Path(f"/proc/{pid}").exists() and running(pid) for pid in workers)


def children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def ignores(pid: int) -> bool:
    mask = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn"))
    return bool(int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def running(pid: int) -> bool:
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.gpu
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_can_be_pinned(photos: Path, workers: int) -> None:
    """Protects copies that overlap with computing."""
    loader = Loader(FolderConfig(path=str(photos), resolution=16).open(), 6, seed=0, workers=workers, pin_memory=True)
    (batch,) = take(loader, 1)
    assert isinstance(batch, Batch)
    assert all(part.is_pinned() for part in batch[:3])
    assert all(part.device.type == "cuda" for part in batch.to("cuda")[:3])


def test_a_batch_moves_as_a_whole() -> None:
    """Protects `to`: a batch stays a batch, with what was cached of its images."""
    batch = Numbers(4).batch(torch.arange(4))
    assert all(part.device.type == "meta" for part in batch.to("meta")[:3])
    latents, tokens = Latents(torch.zeros(4, 2, 1, 1), torch.ones(4, 2, 1, 1)), (torch.zeros(4, 3, 5),)
    moved = batch._replace(latents=latents, tokens=tokens).to("meta")
    assert isinstance(moved, Batch) and isinstance(moved.latents, Latents) and moved.tokens is not None
    assert all(part.device.type == "meta" for part in (*moved[:3], *moved.latents, *moved.tokens))
    assert np.array_equal(batch.indices.numpy(), [0, 1, 2, 3])


ABANDONED = """
import sys
from repae.config import UserError
from repae.data import FolderConfig, Loader
if __name__ == "__main__":
    config = FolderConfig(path=sys.argv[1], resolution=16)
    stream = iter(Loader(config.open(), 6, seed=0, workers=1))
    next(stream)
    try:
        next(iter(Loader(config.replace(on_error="raise").open(), 12, seed=0, workers=1)))
    except UserError as error:
        kept = error  # and with it the frames that it came through
        sys.exit(3)
"""


@pytest.mark.slow
def test_an_open_stream_or_a_kept_error_does_not_hold_up_the_end_of_a_run(photos: Path) -> None:
    """Protects the exit after an error or Ctrl-C, with workers that ignore the signal by which Python ends children."""
    command = [sys.executable, "-c", ABANDONED, str(photos)]
    assert subprocess.run(command, timeout=60, check=False).returncode == 3
