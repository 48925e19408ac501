"""The arguments of a command, and what a command is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pkgutil import resolve_name

from repae.config import UserError, suggest
from repae.runtime.launch import read_launch

WRONG, INTERRUPTED = 2, 130
"""Exit status where something cannot be done, and where a signal stopped it."""


@dataclass
class Arguments:
    """What stands after a command: words that stand alone, and options, ``--name value`` or ``--name=value``."""

    positional: list[str] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, words: Sequence[str], switches: Sequence[str]) -> Arguments:
        """Sorts the words; a switch takes no value, and an option before another one has none."""
        read, waiting = cls(), list(words)
        while waiting:
            word = waiting.pop(0)
            if not _is_option(word):
                read.positional.append(word)
                continue
            name, equals, text = word.lstrip("-").partition("=")
            takes = not equals and name not in switches and waiting and not _is_option(waiting[0])
            if name in read.options:
                raise UserError(f"--{name} is given twice; give it once")
            read.options[name] = text if equals else waiting.pop(0) if takes else None
        return read

    def only(self, what: str) -> str:
        """The one word that stands alone; ``what`` says what it should be."""
        if not self.positional:
            raise UserError(f"{what} is missing; give it after the command")
        self.at_most(1)
        return self.positional[0]

    def at_most(self, count: int) -> None:
        if len(self.positional) > count:
            raise UserError(f"{self.positional[count]!r} is one word too many; options are given as --name value")

    def take(self, name: str) -> str | None:
        """The value of an option, which is then used up."""
        if name not in self.options:
            return None
        text = self.options.pop(name)
        if text is None:
            raise UserError(f"--{name} needs a value: --{name} VALUE")
        return text

    def need(self, name: str, what: str) -> str:
        """As `take`, of an option that must be given; ``what`` says what it should be."""
        if (text := self.take(name)) is None:
            raise UserError(f"--{name} is missing: {what}")
        return text

    def switch(self, name: str) -> bool:
        """Whether a switch is given, which is then used up."""
        if self.options.get(name) is not None:
            raise UserError(f"--{name} takes no value, and was given {self.options[name]!r}; leave it out")
        return self.options.pop(name, "") is None

    def nothing_left(self, *known: str) -> None:
        for name in self.options:
            hint = suggest(name, known) or (f"; allowed: {', '.join('--' + k for k in known)}" if known else "")
            raise UserError(f"--{name} is no option of this command{hint}")


@dataclass(frozen=True)
class Command:
    """One command: what follows its name, what it is for, what it does, and more for its own help."""

    usage: str
    about: str
    run: Callable[[Arguments], int | None]
    switches: tuple[str, ...] = ()
    more: str = ""
    fields: Callable[[Arguments], str] | None = None


def settings_help(settings: str, title: str) -> Callable[[Arguments], str]:
    """Help on every field of ``settings``, a ``module:Class`` that is imported only when somebody asks."""

    def listed(_: Arguments) -> str:
        from repae.config.options import list_options

        return list_options(resolve_name(settings)(), title)

    return listed


def is_first() -> bool:
    """Whether this is the process that speaks: the first of those that a launcher started."""
    launch = read_launch()
    return launch is None or launch.rank == 0


def say(text: str) -> None:
    if is_first():
        print(text)


def _is_option(word: str) -> bool:
    return word.startswith("--") and len(word) > 2
