"""The command line: reads the words, calls one command, and turns errors into one line and an exit status.

Exit status: 0 done; 2 something asked for is not possible, in one line that begins with ``error:``; 130 stopped by
Ctrl-C or SIGTERM with a checkpoint written, so that what was chained after the command does not start.

Nothing heavy is imported here but inside a command, so that help comes at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from repae import __version__
from repae.config import UserError, suggest
from repae.runtime.launch import read_launch

WRONG, INTERRUPTED = 2, 130

HELP = """\
repae {version}: train a VAE and a SiT diffusion transformer together (REPA-E), sample, evaluate, report.

usage: repae COMMAND [ARGUMENTS]

{commands}

`repae COMMAND --help` says more. Start with `repae demo`, or `repae recipes`.
"""


@dataclass
class Words:
    """The words after a command: first those that stand alone, then options, ``--name value`` or ``--name=value``."""

    alone: list[str] = field(default_factory=list)
    options: dict[str, str | None] = field(default_factory=dict)

    @classmethod
    def read(cls, words: Sequence[str], switches: Sequence[str]) -> Words:
        """Sorts the words; a switch takes no value, and an option before another one has none."""
        read, waiting = cls(), list(words)
        while waiting:
            word = waiting.pop(0)
            if not _is_option(word):
                read.alone.append(word)
                continue
            name, equals, text = word.lstrip("-").partition("=")
            takes = not equals and name not in switches and waiting and not _is_option(waiting[0])
            if name in read.options:
                raise UserError(f"--{name} is given twice; give it once")
            read.options[name] = text if equals else waiting.pop(0) if takes else None
        return read

    def only(self, what: str) -> str:
        """The one word that stands alone; ``what`` says what it should be."""
        if not self.alone:
            raise UserError(f"{what} is missing")
        self.at_most(1)
        return self.alone[0]

    def at_most(self, count: int) -> None:
        """Refuses more than ``count`` words that stand alone."""
        if len(self.alone) > count:
            raise UserError(f"{self.alone[count]!r} is one word too many; options are given as --name value")

    def take(self, name: str) -> str | None:
        """The value of an option, which is then used up."""
        if name not in self.options:
            return None
        text = self.options.pop(name)
        if text is None:
            raise UserError(f"--{name} needs a value: --{name} VALUE")
        return text

    def switch(self, name: str) -> bool:
        """Whether a switch is given, which is then used up."""
        if self.options.get(name) is not None:
            raise UserError(f"--{name} takes no value")
        return self.options.pop(name, "") is None

    def nothing_left(self, *known: str) -> None:
        """Refuses what no command has taken."""
        for name in self.options:
            hint = suggest(name, known) or (f"; allowed: {', '.join('--' + k for k in known)}" if known else "")
            raise UserError(f"--{name} is no option of this command{hint}")


def _is_option(word: str) -> bool:
    return word.startswith("--") and len(word) > 2


@dataclass(frozen=True)
class Command:
    """One command: what follows its name, what it is for, what it does, and more for its own help."""

    usage: str
    about: str
    run: Callable[[Words], int | None]
    switches: tuple[str, ...] = ()
    more: str = ""
    fields: Callable[[Words], str] | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after the program's name; those of this process by default.

    Returns:
        The exit status.
    """
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
        print(_help_of(name, command, Words.read(rest, command.switches)))
        return 0
    _show_warnings()
    return command.run(Words.read(rest, command.switches)) or 0


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name.ljust(width)}{command.about}" for name, command in COMMANDS.items()]
    return HELP.format(version=__version__, commands="\n".join(lines))


def _help_of(name: str, command: Command, words: Words) -> str:
    parts = [f"usage: repae {name} {command.usage}".rstrip(), command.about, command.more]
    if command.fields is not None:
        parts.append(command.fields(words))
    return "\n\n".join(part for part in parts if part)


def _show_warnings() -> None:
    """Warnings of this package go to standard error, one line each, of the first process only."""
    log = logging.getLogger("repae")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        log.addHandler(handler)
    log.setLevel(logging.WARNING if _is_first() else logging.ERROR)


def _is_first() -> bool:
    launch = read_launch()
    return launch is None or launch.rank == 0


def _say(text: str) -> None:
    if _is_first():
        print(text)


def _train(words: Words) -> int:
    name = words.only("the recipe, a name from `repae recipes` or the path of a recipe.yaml,")
    runs, losses = Path(words.take("runs") or "runs"), words.take("losses-from")
    dry_run = words.switch("dry-run")
    from repae.recipes.catalogue import compose
    from repae.recipes.plan import plan

    recipe = compose(name, words.options, losses)
    if dry_run:
        _say(str(plan(recipe)))
        return 0
    from repae.recipes.run import train
    from repae.recipes.stages import Interrupted

    try:
        folder = train(recipe, runs)
    except Interrupted as stopped:
        if _is_first():
            print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    _say(f"done: {folder / 'report.html'}")
    return 0


def _train_fields(words: Words) -> str:
    from repae.recipes.catalogue import find
    from repae.recipes.options import list_options

    name = words.alone[0] if words.alone else "digits"
    return f"Every field, with its value in {name!r}:\n\n{list_options(find(name))}"


def _recipes(words: Words) -> None:
    words.at_most(1)
    words.nothing_left()
    from repae.recipes.catalogue import find, listing

    print(find(words.alone[0]).to_yaml().rstrip() if words.alone else listing())


def _sample(words: Words) -> None:
    folder = Path(words.only(_RUN))
    from repae.recipes.outcome import sample
    from repae.recipes.settings import sample_settings

    _say(f"done: {sample(folder, sample_settings(folder, words.options))}")


def _sample_fields(words: Words) -> str:
    from repae.recipes.options import list_options
    from repae.recipes.settings import SampleSettings

    return list_options(SampleSettings(), title="what is drawn")


def _evaluate(words: Words) -> None:
    folder, bundle = Path(words.only(_RUN)), words.take("bundle")
    words.nothing_left("bundle")
    from repae.recipes.outcome import evaluate

    figures = evaluate(folder, bundle)
    numbers = [f"{name:20} {value:.4g}" for name, value in figures.items() if isinstance(value, (int, float))]
    _say("\n".join([*numbers, *figures["notes"], f"done: {folder / 'report.html'}"]))


def _report(words: Words) -> None:
    folder = Path(words.only(_RUN))
    words.nothing_left()
    from repae.report import build

    _say(f"done: {build(folder)}")


def _demo(words: Words) -> None:
    words.at_most(0)
    runs = Path(words.take("runs") or "runs")
    words.nothing_left("runs")
    from repae.recipes.outcome import demo

    _say(f"done: {demo(runs) / 'report.html'}")


def _miniature(words: Words) -> None:
    words.at_most(0)
    runs, out = Path(words.take("runs") or "runs"), words.take("out")
    from repae.recipes.miniature import MiniatureConfig, miniature
    from repae.recipes.options import read_options

    config = MiniatureConfig().replace(**read_options(MiniatureConfig, words.options))
    _say(f"done: {miniature(config, runs, Path(out) if out else None)}")


_RUN = "the run, a folder that `repae train` made,"

_TRAIN_MORE = """\
RECIPE is a name from `repae recipes`, or the path of a recipe.yaml, such as the one in every run's folder.
The run's folder is runs/NAME; the same command goes on where a killed one stopped.

  repae train digits                                       the quick start, minutes on two cores
  repae train digits --name mine --loop.steps 2000 --path.kind cosine
  repae train folder --data.path FOLDER --name mine        images of your own, a subfolder for each class
  repae train repae-sdvae-xl2 --dry-run                    what it would take, and what is missing
  torchrun --nproc-per-node 8 -m repae train repae-sdvae-xl2

  --dry-run             build everything without memory, print sizes and what is missing, train nothing
  --losses-from FILE    loss weights from a file in the guide's form (l1_lpips_kl_gan.yaml); single fields win over it
  --runs FOLDER         where runs are kept (runs)
  --FIELD VALUE         any field of the recipe, listed below. A list is given as 0.9,0.99, nothing as none; another
                        kind of a part as --path.kind cosine, then that kind's own fields; parts of a list by number,
                        --teachers.0.weights FILE, or whole, as YAML: --teachers '[{kind: embedded}]'"""

_SAMPLE_MORE = """\
Writes a grid (PNG) and the images (npz). Without options: as the run's own previews, ten of each class.

  repae sample runs/digits --classes 3,7 --per-class 20
  repae sample runs/digits --count 500 --sampler.kind euler-maruyama --sampler.steps 250 --guidance.scale 1"""

COMMANDS = {
    "train": Command(
        "RECIPE [--FIELD VALUE ...] [--dry-run]",
        "train what a recipe says, or go on with it",
        _train,
        switches=("dry-run",),
        more=_TRAIN_MORE,
        fields=_train_fields,
    ),
    "recipes": Command("[NAME]", "list the named recipes, or print one as YAML", _recipes),
    "sample": Command(
        "RUN [--FIELD VALUE ...]", "draw images from a run", _sample, more=_SAMPLE_MORE, fields=_sample_fields
    ),
    "evaluate": Command(
        "RUN [--bundle live|ema|reference]",
        "measure a run: generated images and reconstruction",
        _evaluate,
        more="Writes evaluation.json into the run's folder, figures with the protocol that made them.",
    ),
    "report": Command("RUN", "write report.html of a run again, from its files", _report),
    "demo": Command("[--runs FOLDER]", "train, sample and evaluate on bundled images, and write a report", _demo),
    "miniature": Command(
        "[--runs FOLDER]", "the paper in miniature: five methods, three seeds each, one table", _miniature
    ),
}
