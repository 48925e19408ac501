"""A bar that counts images while something is made of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from repae.track import ProgressBar


@contextmanager
def image_bar(total: int, title: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Within the context call what it gives with the number of images that are there; ``done`` were before."""
    bar, began = ProgressBar(total, title=title), time.monotonic()
    bar.resume(done)

    def show(now: int) -> None:
        seconds = max(time.monotonic() - began, 1e-9)
        if now > done:
            bar.log(now, {}, {"images_per_second": (now - done) / seconds, "seconds": seconds})

    try:
        yield show
    finally:
        bar.close()
