"""What is made of images before a run: `repae prepare`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.arguments import Arguments, Command, say

_PREPARE_MORE = """\
SOURCE is what `repae train RECIPE --data` takes: a folder with one subfolder of images for each class, an archive,
WebDataset shards, a table (docs/data.md); --data.FIELD says how to read it. The result is a folder of plain arrays from
which `repae train folder --data DIR` trains. The same command goes on where a killed one stopped, and ends with the
same bytes. DIR/contact-sheet.png shows what the model will see.

  repae prepare photos --out photos-256
  repae prepare photos --out photos-512 --resolution 512 --workers 8 --upright
  repae prepare photos --out shared/photos-256 --part 2/4      on the second of four machines
  repae prepare faces.zip --out faces-256 --data.labels none   one class for all
  repae prepare --verify photos-256                            read everything again and compare it"""


def _prepare(arguments: Arguments) -> None:
    if (folder := arguments.take("verify")) is not None:
        _verify(arguments, Path(folder))
        return
    source = arguments.only("the source of images, a folder, an archive or whatever `repae train RECIPE --data` takes,")
    out = arguments.need("out", "the folder for the shards")
    from repae.commands.prepare import prepare_source

    say(f"done: {prepare_source(source, Path(out), arguments.options, say)}")


def _verify(arguments: Arguments, folder: Path) -> None:
    arguments.at_most(0)
    arguments.nothing_left("verify")
    from repae.preparation.verify import verify

    manifest = verify(folder.expanduser(), "images")
    say(f"done: {folder} is whole: {manifest.count:,} images in {len(manifest.shards):,} shards")


def _prepare_fields(arguments: Arguments) -> str:
    from repae.config.options import list_options
    from repae.preparation.images import PrepareConfig

    return list_options(PrepareConfig(), title="how images become shards")


COMMANDS = {
    "prepare": Command(
        "SOURCE --out DIR [--FIELD VALUE ...] | --verify DIR",
        "crop images once and write them as shards, from which training reads fastest",
        _prepare,
        more=_PREPARE_MORE,
        fields=_prepare_fields,
    ),
}
