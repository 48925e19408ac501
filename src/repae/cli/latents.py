"""Latents computed once: `repae cache`, `repae stats`."""

from __future__ import annotations

from pathlib import Path

from repae.cli.arguments import Arguments, Command, say

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


def _cache(arguments: Arguments) -> None:
    source, data = Path(arguments.only(_SOURCE)), arguments.take("data")
    out = arguments.need("out", "the folder that the latents go to, such as --out latents")
    runs = Path(arguments.take("runs") or "runs")
    from repae.commands.cache import CacheConfig, cache
    from repae.config.options import from_options

    config = from_options(CacheConfig, arguments.options)
    say(f"done: {cache(source, Path(out), config, data, runs)}")


def _cache_fields(arguments: Arguments) -> str:
    from repae.commands.cache import CacheConfig
    from repae.config.options import list_options

    return list_options(CacheConfig(), title="what is kept")


def _stats(arguments: Arguments) -> None:
    source, data = Path(arguments.only(_SOURCE)), arguments.take("data")
    from repae.commands.stats import StatsConfig, stats, stats_table
    from repae.config.options import from_options

    figures, files = stats(source, from_options(StatsConfig, arguments.options), data)
    say(f"{stats_table(figures)}\ndone: {files[0]}")


def _stats_fields(arguments: Arguments) -> str:
    from repae.commands.stats import StatsConfig
    from repae.config.options import list_options

    return list_options(StatsConfig(), title="what is measured")


COMMANDS = {
    "cache": Command(
        "SOURCE --out FOLDER [--data FOLDER] [--FIELD VALUE ...]",
        "encode every image once, for training on a frozen VAE",
        _cache,
        more=_CACHE_MORE,
        fields=_cache_fields,
    ),
    "stats": Command(
        "SOURCE [--data FOLDER] [--FIELD VALUE ...]",
        "mean and standard deviation of every latent channel of a VAE",
        _stats,
        more=_STATS_MORE,
        fields=_stats_fields,
    ),
}
