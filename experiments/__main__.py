"""`python -m experiments miniature` and `python -m experiments two-stage`."""

from __future__ import annotations

import sys
from pathlib import Path

from experiments.miniature import MiniatureConfig, miniature
from experiments.two_stage import TwoStageConfig, two_stage
from repae.cli.words import Words
from repae.config import UserError
from repae.config.options import read_options

EXPERIMENTS = {"miniature": (MiniatureConfig, miniature), "two-stage": (TwoStageConfig, two_stage)}


def main(argv: list[str] | None = None) -> int:
    """Carries out one of them; options are the fields of its configuration, ``--runs`` and ``--out`` folders."""
    try:
        words = Words.read(sys.argv[1:] if argv is None else argv, ())
        name = words.only(f"the experiment, one of {', '.join(EXPERIMENTS)},")
        if name not in EXPERIMENTS:
            raise UserError(f"no experiment {name!r}; allowed: {', '.join(EXPERIMENTS)}")
        config, carry_out = EXPERIMENTS[name]
        runs, out = Path(words.take("runs") or "runs"), words.take("out")
        page = carry_out(config().replace(**read_options(config, words.options)), runs, Path(out) if out else None)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"done: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
