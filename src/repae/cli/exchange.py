"""Weights in and out: `repae import`, `export`, `inspect`, `push`."""

from __future__ import annotations

import os
from pathlib import Path

from repae.cli.arguments import Arguments, Command, say, settings_help

_IMPORT_MORE = """\
FILE is a .pt or .safetensors of the reference (REPA-E): a joint checkpoint, one on a frozen autoencoder, or an
autoencoder with its -latents-stats.pt and -discriminator-ckpt.pt beside it; or a checkpoint or bare weights of REPA,
SiT or LightningDiT, the latter with its latents_stats.pt. No code in the file is ever run. The folder is one for
`repae sample`, `evaluate`, `export`, and for `repae train RECIPE --init-from FOLDER`.

  repae import 0400000.pt --out imported/repae
  repae import SiT-XL-2-256x256.pt --vae sd-vae-ft-mse --out imported/sit"""

_EXPORT_MORE = """\
RUN is a run or what `repae import` wrote. The folder that diffusers opens needs nothing of this package; its model card
says how to open it.

  repae export runs/digits --out digits-diffusers
  repae export runs/digits --part vae --out digits-vae
  repae export imported/repae --format reference --out back"""

_PUSH_MORE = """\
The token is that of HF_TOKEN or of `hf auth login`; the address of the hub is HF_ENDPOINT's, if set. The repository is
made if it is missing.

  repae push digits-diffusers --to me/digits --private"""


def _import(arguments: Arguments) -> None:
    file = Path(arguments.only("the file to import"))
    from repae.commands.import_weights import ImportSettings, import_file
    from repae.config.options import from_options

    settings = from_options(ImportSettings, arguments.options)
    folder, notes = import_file(file, settings)
    say("\n".join([*(f"note: {note}" for note in notes), f"done: {folder}"]))


def _export(arguments: Arguments) -> None:
    folder = Path(arguments.only("the run to export"))
    from repae.commands.export import ExportSettings, export
    from repae.config.options import from_options

    settings = from_options(ExportSettings, arguments.options)
    say(f"done: {export(folder, settings)}")


def _inspect(arguments: Arguments) -> None:
    path = Path(arguments.only("the file or folder to inspect"))
    arguments.nothing_left()
    from repae.export.inspect import inspect

    say(str(inspect(path)))


def _push(arguments: Arguments) -> None:
    folder, repository = Path(arguments.only("the exported folder")), arguments.need("to", "--to ORGANISATION/NAME")
    private = arguments.switch("private")
    arguments.nothing_left("to", "private")
    from repae.export.push import push

    say(f"done: {push(folder, repository, endpoint=os.environ.get('HF_ENDPOINT'), private=private)}")


COMMANDS = {
    "import": Command(
        "FILE --out FOLDER [--FIELD VALUE ...]",
        "take in a checkpoint of the reference, of REPA, SiT or LightningDiT",
        _import,
        more=_IMPORT_MORE,
        fields=settings_help("repae.commands.import_weights:ImportSettings", "what the file does not say"),
    ),
    "export": Command(
        "RUN --out FOLDER [--format diffusers|reference] [--part all|vae]",
        "write a run for diffusers, or in the reference's layout",
        _export,
        more=_EXPORT_MORE,
        fields=settings_help("repae.commands.export:ExportSettings", "what is exported"),
    ),
    "inspect": Command("FILE_OR_FOLDER", "say what a run, a checkpoint, an export or a file of weights is", _inspect),
    "push": Command(
        "FOLDER --to ORGANISATION/NAME [--private]",
        "upload an exported folder to the hub",
        _push,
        switches=("private",),
        more=_PUSH_MORE,
    ),
}
