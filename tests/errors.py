"""What an error must tell: facts (the field, the value seen, what is allowed, the remedy), in any order and wording."""

from __future__ import annotations

import re
from types import TracebackType
from typing import Any

import pytest


def untold(text: str, *facts: object) -> list[str]:
    """Facts that the text does not tell. A fact is literal and stands whole: `7` is no part of `17`, `0.7` or `-7`."""
    return [str(fact) for fact in facts if not re.search(_whole(str(fact)), text)]


def _whole(fact: str) -> str:
    assert fact.strip(), "an empty fact is told by every text"
    before = r"(?<![\w-])(?<!\d[.])" if re.match(r"\d", fact) else r"(?<!\w)" if re.match(r"\w", fact) else ""
    after = r"(?!\w)(?![.]\d)" if re.search(r"\w\Z", fact) else ""
    return before + re.escape(fact) + after


def assert_tells(text: str, *facts: object) -> None:
    """The text (of an error, or what a command printed) tells every fact."""
    __tracebackhide__ = True
    assert facts, "name what the text must tell"
    missing = untold(text, *facts)
    if missing:
        pytest.fail(f"the text does not tell {', '.join(map(repr, missing))}:\n{text}")


class refused:
    """The block raises an error of this kind whose text tells every fact; handed out as `pytest.raises` does."""

    def __init__(self, kind: type[BaseException] | tuple[type[BaseException], ...], *facts: object) -> None:
        assert facts, "name what the error must tell"
        self.raises, self.facts = pytest.raises(kind), facts

    def __enter__(self) -> pytest.ExceptionInfo[Any]:
        self.error = self.raises.__enter__()
        return self.error

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        expected = bool(self.raises.__exit__(kind, raised, traceback))
        if expected:
            assert_tells(str(self.error.value), *self.facts)
        return expected
