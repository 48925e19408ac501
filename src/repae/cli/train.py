"""A run from its recipe: `repae train`, `recipes`, `demo`, `teachers`."""

from __future__ import annotations

import sys
from pathlib import Path

from repae.cli.arguments import INTERRUPTED, Arguments, Command, is_first, say

_TRAIN_MORE = """\
RECIPE is a name from `repae recipes`, or the path of a recipe.yaml, such as the one in every run's folder.
The run's folder is runs/NAME; the same command goes on where a killed one stopped.

  repae train digits                                       the quick start, minutes on two cores
  repae train digits --name mine --loop.steps 2000 --path.kind cosine
  repae train folder --data PATH --name mine               images of your own: folder, archive, shards; docs/data.md
  repae train repae-sdvae-xl2 --dry-run                    what it would take, and what is in the way
  torchrun --nproc-per-node 8 -m repae train repae-sdvae-xl2

  --dry-run             build everything without memory, print sizes and all that is in the way, train nothing
  --init-from FOLDER    start from the players of a run, an import or an exported folder of the same sizes
  --losses-from FILE    loss weights from a file in the guide's form (l1_lpips_kl_gan.yaml); single fields win over it
  --runs FOLDER         where runs are kept (runs)
  --FIELD VALUE         any field of the recipe, listed below. A list is given as 0.9,0.99, nothing as none; another
                        kind of a part as --path.kind cosine, then that kind's own fields; parts of a list by number,
                        --teachers.0.weights FILE, or whole, as YAML: --teachers '[{kind: embedded}]'"""

_TEACHERS_MORE = """\
Tokens are those of images with 256 and 512 px on a side: as many as the SiT has, whatever the teacher's patch.
A gated teacher's authors hand out their files after their licence has been accepted; a file from elsewhere is given as
--teachers.0.weights FILE.

  repae train repae-sdvae-xl2 --teachers dinov2-b,clip-l
  repae train repae-sdvae-xl2 --teachers mocov3-b --teachers.0.weights vit-b-300ep.pth.tar

The reference's names (dinov2-vit-b, clip-vit-L) are understood, and so is any plain vision transformer of timm by its
full name. Nothing needs to be fetched for `embedded`, a small teacher that a run trains first, and for a denoiser that
teaches itself (--method.self-teacher.depth N with method repa)."""


def _train(arguments: Arguments) -> int:
    name = arguments.only("the recipe, a name from `repae recipes` or the path of a recipe.yaml,")
    runs, dry = Path(arguments.take("runs") or "runs"), arguments.switch("dry-run")
    losses, start = arguments.take("losses-from"), arguments.take("init-from")
    from repae.recipes.catalogue import compose
    from repae.runs.preflight.dry_run import dry_run

    recipe = compose(name, arguments.options, losses, start)
    if dry:
        say(str(dry_run(recipe, runs)))
        return 0
    from repae.commands.train import train
    from repae.runs.players import Interrupted

    try:
        folder = train(recipe, runs)
    except Interrupted as stopped:
        if is_first():
            print(f"{stopped}; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    say(f"done: {folder / 'report.html'}")
    return 0


def _train_fields(arguments: Arguments) -> str:
    from repae.config.options import list_options
    from repae.recipes.catalogue import find

    name = arguments.positional[0] if arguments.positional else "digits"
    return f"Every field, with its value in {name!r}:\n\n{list_options(find(name))}"


def _recipes(arguments: Arguments) -> None:
    arguments.at_most(1)
    arguments.nothing_left()
    from repae.recipes.catalogue import find, listing

    print(find(arguments.positional[0]).to_yaml().rstrip() if arguments.positional else listing())


def _demo(arguments: Arguments) -> None:
    arguments.at_most(0)
    runs = Path(arguments.take("runs") or "runs")
    arguments.nothing_left("runs")
    from repae.commands.demo import demo

    say(f"done: {demo(runs) / 'report.html'}")


def _teachers(arguments: Arguments) -> None:
    arguments.at_most(0)
    arguments.nothing_left()
    from repae.models.teachers.catalogue import table

    say(table())


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
    "demo": Command("[--runs FOLDER]", "train, sample and evaluate on bundled images, and write a report", _demo),
    "teachers": Command(
        "",
        "list the pretrained teachers: width, tokens, licence, where to get them",
        _teachers,
        more=_TEACHERS_MORE,
    ),
}
