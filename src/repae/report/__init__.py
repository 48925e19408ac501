"""A run shown in one self-contained HTML file."""

from repae.report.build import build

__all__ = ["build"]
