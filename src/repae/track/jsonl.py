"""Metrics as lines of JSON, one per logging interval: the record that reports and tests read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from repae.config import UserError, write_atomic
from repae.track.base import Tracker


class JsonlTracker(Tracker):
    """Appends `{"step": 10, KEY: value, ..., "wall": {...}}` to a file, each line written whole and at once.

    A value that is not finite is written as null, for JSON knows no NaN. Clock times stand inside "wall" only: without
    it, the file of a run that was killed and continued equals that of one that was not, byte for byte.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)

    @override
    def log(self, step: int, row: Mapping[str, float], wall: Mapping[str, float] | None = None) -> None:
        record: dict[str, Any] = {"step": step, **_finite(row)}
        if wall is not None:
            record["wall"] = _finite(wall)
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        with self.path.open("ab", buffering=0) as file:
            file.write(line)

    @override
    def resume(self, step: int) -> None:
        """Remove the lines of later steps and a last line that was cut short, all at once or not at all."""
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        kept = b"".join(line for line, record in _lines(data, self.path) if record["step"] <= step)
        if kept != data:
            write_atomic(self.path, kept)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics file in order; null becomes NaN, a last line without its end is left out.

    Raises:
        UserError: there is no such file, or a line inside it is no record.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: the metrics cannot be read: {error.strerror}; give a run's metrics.jsonl") from None
    return [_with_nan(record) for _, record in _lines(data, Path(path))]


def _lines(data: bytes, path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    lines = []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        # Cut short by a kill: nothing comes behind it.
        if not line.endswith(b"\n"):
            break
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("step"), int):
            raise UserError(f"{path}, line {number}: not a record of metrics: {line[:60]!r}; remove the line")
        lines.append((line, record))
    return lines


def _finite(row: Mapping[str, float]) -> dict[str, float | None]:
    return {key: float(value) if math.isfinite(value) else None for key, value in row.items()}


def _with_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _with_nan(value) if isinstance(value, dict) else math.nan if value is None else value
        for key, value in record.items()
    }
