"""What an error must tell: facts (the field, the value seen, what is allowed, the remedy), in any order and wording."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def untold(text: str, *facts: object) -> list[str]:
    """Facts that the text does not tell. A fact is literal and stands whole: `7` is no part of `17` or `0.7`."""
    return [str(fact) for fact in facts if not re.search(_whole(str(fact)), text)]


def _whole(fact: str) -> str:
    assert fact.strip(), "an empty fact is told by every text"
    before = r"(?<!\w)(?<!\d[.])" if re.match(r"\w", fact) else ""
    after = r"(?!\w)(?![.]\d)" if re.search(r"\w\Z", fact) else ""
    return before + re.escape(fact) + after


def assert_tells(text: str, *facts: object) -> None:
    """The text (of an error, or what a command printed) tells every fact."""
    __tracebackhide__ = True
    assert facts, "name what the text must tell"
    missing = untold(text, *facts)
    if missing:
        pytest.fail(f"the text does not tell {', '.join(map(repr, missing))}:\n{text}")


@contextmanager
def refused(kind: type[BaseException], *facts: object) -> Iterator[pytest.ExceptionInfo[Any]]:
    """The block raises an error of this kind whose text tells every fact; handed out as `pytest.raises` does."""
    __tracebackhide__ = True
    assert facts, "name what the error must tell"
    with pytest.raises(kind) as error:
        yield error
    assert_tells(str(error.value), *facts)
