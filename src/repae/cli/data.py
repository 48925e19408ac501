"""What is made of images before a run: `repae prepare`, `cache`, `stats`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.arguments import Arguments, Command, say, settings_help

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

_SOURCE = "the autoencoder, a run or its folder or file,"

_CACHE_MORE = """\
SOURCE is a run (the autoencoder of its own bundle is taken), a diffusers folder, safetensors, or the reference's .pt.
The same command goes on where a killed one stopped; torchrun shares the work among processes.

  repae cache runs/digits --out latents
  repae cache runs/digits --out latents --teachers '[{kind: embedded}]'    the teacher's tokens too
  repae cache vae.pt --data images/train --flipped --out latents           for data that training mirrors

Train on them, with the autoencoder that made them, by

  repae train digits-sit --start.kind weights --start.path runs/digits --latents.path latents --name second

  --out FOLDER          where to (needed)
  --data FOLDER         the images; by default those of the run
  --runs FOLDER         where embedded teachers are kept (runs)
  --FIELD VALUE         any of the fields below"""

_STATS_MORE = """\
Of every latent channel, in float64 and streaming: nobody has to make a statistics file by hand. Of a folder of cached
latents nothing is computed but the figures.

  repae stats runs/digits
  repae stats vae.pt --data images/train --format reference    writes vae-latents-stats.pt beside it
  repae stats latents

  --data FOLDER         the images; by default those of the run
  --FIELD VALUE         any of the fields below"""


def _prepare(arguments: Arguments) -> None:
    if (folder := arguments.take("verify")) is not None:
        _verify(arguments, Path(folder))
        return
    source = arguments.only("the source of images, a folder, an archive or whatever `repae train RECIPE --data` takes,")
    out = arguments.need("out", "the folder for the shards")
    from repae.config.options import from_options
    from repae.preparation.images import PrepareConfig, prepare
    from repae.recipes.sources import DATA, image_source

    own = {name: text for name, text in arguments.options.items() if not name.startswith(DATA)}
    config = from_options(PrepareConfig, own)
    images = image_source(source, arguments.options, {"resolution": config.resolution})
    say(f"done: {prepare(images, Path(out).expanduser(), config, say)}")


def _verify(arguments: Arguments, folder: Path) -> None:
    arguments.at_most(0)
    arguments.nothing_left("verify")
    from repae.preparation.verify import verify

    manifest = verify(folder.expanduser(), "images")
    say(f"done: {folder} is whole: {manifest.count:,} images in {len(manifest.shards):,} shards")


def _cache(arguments: Arguments) -> None:
    source, data = Path(arguments.only(_SOURCE)), arguments.take("data")
    out = arguments.need("out", "the folder that the latents go to, such as --out latents")
    runs = Path(arguments.take("runs") or "runs")
    from repae.commands.cache import CacheConfig, cache
    from repae.config.options import from_options

    config = from_options(CacheConfig, arguments.options)
    say(f"done: {cache(source, Path(out), config, data, runs)}")


def _stats(arguments: Arguments) -> None:
    source, data = Path(arguments.only(_SOURCE)), arguments.take("data")
    from repae.commands.stats import StatsConfig, stats, stats_table
    from repae.config.options import from_options

    figures, files = stats(source, from_options(StatsConfig, arguments.options), data)
    say(f"{stats_table(figures)}\ndone: {files[0]}")


COMMANDS = {
    "prepare": Command(
        "SOURCE --out DIR [--FIELD VALUE ...] | --verify DIR",
        "crop images once and write them as shards, from which training reads fastest",
        _prepare,
        more=_PREPARE_MORE,
        fields=settings_help("repae.preparation.images:PrepareConfig", "how images become shards"),
    ),
    "cache": Command(
        "SOURCE --out FOLDER [--data FOLDER] [--FIELD VALUE ...]",
        "encode every image once, for training on a frozen VAE",
        _cache,
        more=_CACHE_MORE,
        fields=settings_help("repae.commands.cache:CacheConfig", "what is kept"),
    ),
    "stats": Command(
        "SOURCE [--data FOLDER] [--FIELD VALUE ...]",
        "mean and standard deviation of every latent channel of a VAE",
        _stats,
        more=_STATS_MORE,
        fields=settings_help("repae.commands.stats:StatsConfig", "what is measured"),
    ),
}
