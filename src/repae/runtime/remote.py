"""Files behind URLs, by fsspec. Whoever asks a network asks here, by one rule of patience."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from repae.config import UserError
from repae.config.files import readable

WAITS = (0.25, 1.0, 4.0)
"""Seconds after which a storage that fails is asked once more; then it is given up."""

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
"""A disk or a quota that is full: on this machine, so that asking again is of no use."""

T = TypeVar("T")


class UnreachableError(OSError):
    """A storage that fails each time it is asked. Its number says: the machine is at fault, and not what it holds."""

    def __init__(self, url: str, tries: int, error: BaseException) -> None:
        often = f" in {tries} tries" if tries > 1 else ""
        remedy = "check the URL, the connection and the permission"
        super().__init__(errno.EIO, f"'{readable(url)}' cannot be reached{often}: {reason(error)}; {remedy}")


def is_url(path: str | Path) -> bool:
    """Whether a path names other storage than this machine's folders, such as ``s3://bucket/folder``."""
    return "://" in str(path)


def ask(url: str, question: Callable[[Any, str], T]) -> T:
    """What a storage answers to a question, a function of fsspec's file system and of the name in it.

    Raises:
        UserError: what reaches such a URL is not installed.
        FileNotFoundError: it is not there.
        UnreachableError: it fails, and goes on failing; or it may not be read.
        OSError: this machine's disk is full.
    """
    import fsspec

    waits = iter(WAITS)
    for tries in count(1):
        try:
            # fsspec itself keeps one connection for each process and thread.
            return question(*fsspec.core.url_to_fs(url))
        except (FileNotFoundError, UserError):
            raise
        except ImportError as error:
            raise UserError(
                f"'{readable(url)}' needs more than is installed: {error}; install it, or copy the files here"
            ) from None
        except Exception as error:  # every storage raises its own kind
            if getattr(error, "errno", None) in NO_ROOM:
                raise
            # What is forbidden or misspelt stays so, however often it is asked for.
            wait = None if isinstance(error, (PermissionError, ValueError)) else next(waits, None)
            if wait is None:
                raise UnreachableError(url, tries, error) from error
            time.sleep(wait)
    raise AssertionError


def reason(error: BaseException) -> str:
    """Why something failed, on one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return text.partition("\n")[0]
