"""What stands between a recipe and its start, collected instead of raised one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from repae.config import UserError


@dataclass(frozen=True)
class Problem:
    """One thing that a recipe lacks or contradicts.

    Attributes:
        part: the part of the recipe that it belongs to, such as "data" or "teacher dinov2-b".
        text: what is wrong, the value seen, what is allowed, what to do.
        blocks: whether the run cannot start; else something that is fetched from the hub when it does.
    """

    part: str
    text: str
    blocks: bool = True

    def __str__(self) -> str:
        return f"{self.part}: {self.text}"


class Findings:
    """The problems found so far."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, part: str, text: str, *, blocks: bool = True) -> None:
        """Notes a problem; a text that begins with its part says it once."""
        self.problems.append(Problem(part, text.removeprefix(f"{part}: "), blocks))

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Within the context a refusal is noted in place of being raised.

        The rules stay where they are used: what would refuse at the start is asked here first.
        """
        try:
            yield
        except UserError as error:
            self.add(name, str(error))


def refusal(problems: list[Problem]) -> UserError:
    """All of ``problems`` as one error; a single one is one line."""
    if len(problems) == 1:
        return UserError(str(problems[0]))
    lines = "\n".join(f"  {problem}" for problem in problems)
    return UserError(f"this recipe cannot start, for {len(problems)} reasons:\n{lines}")
