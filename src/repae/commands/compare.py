"""Figures as text: one evaluation, or several side by side."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repae.config import UserError
from repae.evaluation.protocol import differences, refusing
from repae.report.figures import FIGURES, HIGHER, LOWER, RECONSTRUCTED

SHOWN = 12
"""Differing fields that are named; the others are counted."""


def figures_table(result: Mapping[str, Any]) -> str:
    """Every figure with its interval or deviation, and what makes it untrustworthy, then the notes."""
    intervals, deviations = result.get("intervals", {}), result.get("deviations", {})
    rows = []
    for key in _keys([result]):
        low, high = intervals.get(key, (math.nan, math.nan))
        spread = f"{low:.4g} to {high:.4g}" if key in intervals else ""
        if key in deviations:
            spread = f"+- {deviations[key]:.2g} over parts"
        rows.append([key, f"{result[key]:.4g}", spread, result.get("warnings", {}).get(key, "")])
    notes = [str(note) for note in result.get("notes", [])]
    return "\n".join([_columns([["figure", "value", "95%", "beware"], *rows]), *notes])


@dataclass(frozen=True)
class ComparedRuns:
    """Evaluations side by side, and whether they may be compared. As text: the table that `repae compare` prints.

    Attributes:
        names: of the runs, the last part of each path.
        figures: the evaluation of each, as `repae evaluate` wrote it.
        comparable: whether figures of generated images may stand side by side.
    """

    names: tuple[str, ...]
    figures: tuple[dict[str, Any], ...]
    comparable: bool
    table: str = field(repr=False)

    def __str__(self) -> str:
        return self.table


def compare_runs(*runs: str | Path) -> ComparedRuns:
    """The evaluations of runs held against the first one's.

    Figures may be compared where everything that could change them was the same: images, labels, sampler, steps,
    guidance, weights, reference, networks. Where not, the fields that differ are named with their values. A figure that
    may be compared has a star at its best value.

    Args:
        runs: folders with ``evaluation.json``, or JSON files that `repae evaluate` wrote; at least two.

    Raises:
        UserError: fewer than two, or one without an evaluation.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs: `repae compare RUN RUN ...`")
    results = [read_evaluation(run) for run in runs]
    names = [Path(run).name for run in runs]
    apart = [differences(results[0]["protocol"], other["protocol"]) for other in results[1:]]
    allowed = {
        generated: not any(refusing(different, generated=generated) for different in apart)
        for generated in (True, False)
    }
    lines = [*_table(names, results, allowed), "", *_verdict(names, apart, allowed)]
    return ComparedRuns(tuple(names), tuple(results), allowed[True], "\n".join(lines))


def _table(names: Sequence[str], results: Sequence[Mapping[str, Any]], allowed: Mapping[bool, bool]) -> list[str]:
    """A column for each run, a star at the best value where values may be compared, a mark at what is not trusted."""
    rows = []
    for key in _keys(results):
        values = [result.get(key) for result in results]
        best = _best(key, values) if allowed[not key.startswith(RECONSTRUCTED)] else set()
        cells = [
            f"{_value(value)}{'*' if column in best else ''}{'!' if key in results[column].get('warnings', {}) else ''}"
            for column, value in enumerate(values)
        ]
        rows.append([key, *cells])
    lines = [_columns([["figure", *names], *rows])]
    if any(key in result.get("warnings", {}) for result in results for key in result):
        lines.append("!: too few images to be trusted as it stands; `repae evaluate` says why.")
    return lines


def read_evaluation(place: str | Path) -> dict[str, Any]:
    path = Path(place)
    path = path / "evaluation.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{place} has no evaluation yet; run `repae evaluate {place}` first") from None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path} cannot be read as an evaluation: {error}; make it again with `repae evaluate`"
        ) from None
    if not isinstance(result, dict) or not isinstance(result.get("protocol"), dict):
        raise UserError(f"{path} holds no figures with a protocol; make it with `repae evaluate`")
    return result


def _verdict(names: Sequence[str], apart: Sequence[Mapping[str, Any]], allowed: Mapping[bool, bool]) -> list[str]:
    lines = []
    if all(allowed.values()):
        lines.append("Comparable: one protocol. *: the best value.")
    elif allowed[False]:
        lines.append("NOT COMPARABLE: protocols of generated images differ. Figures of the autoencoder may be.")
    else:
        lines.append("NOT COMPARABLE: the protocols differ.")
    for name, different in zip(names[1:], apart):
        forbidding = refusing(different, generated=True)
        for kind, fields in (("differs", forbidding), ("differs too", [f for f in different if f not in forbidding])):
            shown = [f"  {field}: {different[field][0]!r} | {different[field][1]!r}" for field in fields[:SHOWN]]
            more = [f"  and {len(fields) - SHOWN} more"] if len(fields) > SHOWN else []
            lines += [f"{names[0]} | {name}, what {kind}:", *shown, *more] if shown else []
    return lines


def _keys(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of figures, those that are known first and in the order of the report."""
    found = {key for result in results for key, value in result.items() if _is_number(value)}
    return [*(key for key in FIGURES if key in found), *sorted(found - set(FIGURES))]


def _best(key: str, values: Sequence[Any]) -> set[int]:
    present = {i: value for i, value in enumerate(values) if _is_number(value)}
    if len(present) < 2 or key.endswith(("_floor", "_real")) or not key.startswith((*LOWER, *HIGHER)):
        return set()
    best = (max if key.startswith(HIGHER) else min)(present.values())
    return {i for i, value in present.items() if value == best}


def _value(value: Any) -> str:
    return f"{value:.4g}" if _is_number(value) else "-"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
