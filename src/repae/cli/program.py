"""Finds the command, calls it, and turns errors into one line and an exit status."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from repae import __version__
from repae.cli import data, exchange, runs, train
from repae.cli.arguments import INTERRUPTED, WRONG, Arguments, Command, is_first
from repae.config import UserError, suggest

HELP = """\
repae {version}: train a VAE and a SiT diffusion transformer together (REPA-E), sample, evaluate, report.

usage: repae COMMAND [ARGUMENTS]

{commands}

`repae COMMAND --help` says more. Start with `repae demo`, or `repae recipes`.
"""

COMMANDS: dict[str, Command] = {**train.COMMANDS, **data.COMMANDS, **runs.COMMANDS, **exchange.COMMANDS}
"""Every command by name, in the order in which help lists them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command, by default that of this process, and returns the exit status."""
    try:
        return _run(list(sys.argv[1:] if argv is None else argv))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(__version__)
        return 0
    name, *rest = words
    if name not in COMMANDS:
        hint = suggest(name, COMMANDS) or f"; allowed: {', '.join(COMMANDS)}"
        raise UserError(f"no command {name!r}{hint}")
    command = COMMANDS[name]
    if "-h" in rest or "--help" in rest:
        rest = [word for word in rest if word not in ("-h", "--help")]
        print(_help_of(name, command, Arguments.read(rest, command.switches)))
        return 0
    _show_warnings()
    return command.run(Arguments.read(rest, command.switches)) or 0


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name.ljust(width)}{command.about}" for name, command in COMMANDS.items()]
    return HELP.format(version=__version__, commands="\n".join(lines))


def _help_of(name: str, command: Command, arguments: Arguments) -> str:
    parts = [f"usage: repae {name} {command.usage}".rstrip(), command.about, command.more]
    if command.fields is not None:
        parts.append(command.fields(arguments))
    return "\n\n".join(part for part in parts if part)


def _show_warnings() -> None:
    """Warnings of this package go to standard error, one line each, of the first process only."""
    log = logging.getLogger("repae")
    for handler in [handler for handler in log.handlers if handler.get_name() == __name__]:
        log.removeHandler(handler)  # of an earlier command in this process: standard error may be another by now
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.set_name(__name__)
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.WARNING if is_first() else logging.ERROR)
