"""Batches without end, any of which can be the first."""

from __future__ import annotations

import atexit
import signal
import weakref
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from repae.config import UserError
from repae.data.batch import Batch, Dataset
from repae.data.order import Order
from repae.runtime.distributed import World
from repae.runtime.distributed import world as current_world
from repae.runtime.seeds import Share


class Job(NamedTuple):
    """The images of one micro-batch of one process: their indices and which are mirrored (None: none is)."""

    indices: Int64[np.ndarray, " b"]
    flips: Bool[np.ndarray, " b"] | None


class Result(NamedTuple):
    """What a worker sends: a batch and what it found broken, or the words with which it gave up."""

    batch: Batch | None
    broken: dict[int, str]
    error: str | None


class Loader:
    """An endless stream of micro-batches on the CPU: those of this process.

    Position p of the stream shows the image `Order(len(dataset), seed, dataset.block).indices(p)`. Global batch g
    covers the positions g * batch_size to (g + 1) * batch_size - 1, over the end of an epoch where it falls inside,
    whatever the size of the data set. `Share` divides it into micro-batches and these among the processes. So the
    images of a step depend on (dataset, batch_size, seed, step) only: not on how many processes, micro-batches or
    workers there are, nor on where a run was interrupted. Each `iter()` starts at `start_step` again.

    Args:
        dataset: where the images come from.
        batch_size: images of one step, over all its micro-batches and processes.
        seed: of the order and of the flips.
        share_count: micro-batches in one step.
        world: which process this is; None asks `repae.runtime`.
        workers: processes that read images ahead; 0 reads in this one. The batches are the same.
        start_step: the step whose batch comes first, for a run that goes on.
        pin_memory: put the batches into page-locked memory, for a GPU.

    Raises:
        UserError: the batch cannot be divided equally, or a number is out of range.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        *,
        seed: int,
        share_count: int = 1,
        world: World | None = None,
        workers: int = 0,
        start_step: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.dataset = dataset
        self.batch_size = batch_size
        self.start_step = start_step
        self.workers = workers
        self.pin_memory = pin_memory
        self.order = Order(len(dataset), seed, dataset.block)
        self.world = current_world() if world is None else world
        self._check(share_count)
        self.shares = [Share(micro, share_count, self.world.rank, self.world.size) for micro in range(share_count)]

    def __iter__(self) -> Iterator[Batch]:
        return read_jobs(self.dataset, self.jobs(), workers=self.workers, pin_memory=self.pin_memory)

    def jobs(self) -> Iterator[Job]:
        start = self.start_step * self.batch_size
        while True:
            for share in self.shares:
                place = share.positions(self.batch_size)
                # Counted over the end of an epoch: no short last batch, and no image is dropped.
                positions = np.arange(start + place.start, start + place.stop)
                indices = self.order.indices(positions)
                yield Job(indices, self.order.flips(positions, indices) if self.dataset.flip else None)
            start += self.batch_size

    def _check(self, share_count: int) -> None:
        for name, value, least in (
            ("batch size", self.batch_size, 1),
            ("number of micro-batches", share_count, 1),
            ("number of workers", self.workers, 0),
            ("start step", self.start_step, 0),
        ):
            if value < least:
                raise UserError(f"the {name} is {value}; it must be at least {least}")
        parts = share_count * self.world.size
        if self.batch_size % parts:
            below = self.batch_size // parts * parts
            near = f"{below} or {below + parts}" if below else parts
            raise UserError(
                f"a batch of {self.batch_size} images cannot be divided equally among {self.world.size} process(es) "
                f"with {share_count} micro-batch(es) each; take a multiple of {parts}, such as {near}"
            )


def read_jobs(dataset: Dataset, jobs: Iterable[Job], *, workers: int = 0, pin_memory: bool = False) -> Iterator[Batch]:
    """The batches of jobs, in their order; with `workers` above 0 they are read ahead in so many processes."""
    return _read_ahead(dataset, jobs, workers, pin_memory) if workers else _read(dataset, jobs, pin_memory)


def _read(dataset: Dataset, jobs: Iterable[Job], pin_memory: bool) -> Iterator[Batch]:
    for job in jobs:
        batch = _load(dataset, job)
        yield batch.pin_memory() if pin_memory else batch


def _read_ahead(dataset: Dataset, jobs: Iterable[Job], workers: int, pin_memory: bool) -> Iterator[Batch]:
    reader = DataLoader(
        _Reader(dataset),
        batch_size=None,
        sampler=jobs,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_the_parent,
        generator=torch.Generator(),  # a worker's seed is not used, and torch's own generator must not move for it
    )
    batches = _unpack(dataset, reader)
    # Python ends its children by SIGTERM, which these ignore. Registered last, this comes before.
    atexit.register(_close, weakref.ref(batches))
    return batches


def _unpack(dataset: Dataset, reader: Iterable[Result]) -> Generator[Batch, None, None]:
    results = iter(reader)
    try:
        for batch, broken, error in results:
            dataset.note_broken(broken)
            if error is not None:
                raise UserError(error)
            assert batch is not None
            yield batch
    finally:
        # The workers end with their iterator. Whoever keeps an error keeps this frame: it must not keep the iterator.
        del results


class _Reader(TorchDataset[Result]):
    """Does jobs in a worker process. A refusal travels as words: as an exception it would arrive inside a traceback."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, job: Job) -> Result:
        # Dicts keep their order, so what is new stands behind what was known.
        known = len(self.dataset.broken)
        try:
            batch, error = _load(self.dataset, job), None
        except UserError as refusal:
            batch, error = None, str(refusal)
        return Result(batch, dict(list(self.dataset.broken.items())[known:]), error)


def _load(dataset: Dataset, job: Job) -> Batch:
    flips = None if job.flips is None else torch.from_numpy(job.flips)
    return dataset.batch(torch.from_numpy(job.indices), flips)


def _as_it_is(result: Any) -> Any:
    return result


def _close(reference: weakref.ref[Generator[Batch, None, None]]) -> None:
    batches = reference()
    if batches is not None:
        batches.close()


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C and a cluster's SIGTERM reach the whole process group; the parent ends its step, then its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
