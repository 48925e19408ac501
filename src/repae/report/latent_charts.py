"""The latents: how strong each channel is, and how fine what they hold is."""

from __future__ import annotations

from html import escape
from typing import Any

from repae.report.charts import bars, chart
from repae.report.page import missing, section
from repae.report.run_files import RunFiles


def latents(run: RunFiles) -> str:
    title = "The latents"
    found = (run.evaluation or {}).get("latents")
    if not isinstance(found, dict):
        return section("latents", title, missing("The latents were not looked at: there is no evaluation of them."))
    std, mean, spectrum = (_numbers(found.get(key)) for key in ("std", "mean", "spectrum"))
    panels = []
    if std:
        panels.append(bars("Variance of each channel", [value**2 for value in std], "Over images and places."))
    if mean:
        panels.append(bars("Mean of each channel", mean, "Over images and places."))
    if spectrum:
        panels.append(_spectrum(spectrum))
    if not panels:
        return section("latents", title, missing("There are no figures of channels or frequencies."))
    return section("latents", title, f"<p>{escape(_intro(found))}</p>", f"<div class='charts'>{''.join(panels)}</div>")


def _spectrum(shares: list[float]) -> str:
    about = (
        f"Share of the variance over places at each spatial frequency, 1 to {len(shares)} cycles per side. Coarse "
        "things are on the left; what falls towards the right is easier for a diffusion model."
    )
    return chart("Spectrum", {"share": [(k + 1.0, share) for k, share in enumerate(shares)]}, about, "frequency")


def _intro(found: dict[str, Any]) -> str:
    images = f" of {found['images']:,} real images" if isinstance(found.get("images"), int) else ""
    scale = "as the encoder gives them: an autoencoder alone keeps no statistics"
    if found.get("normalised", True):
        scale = (
            "after the normaliser, as the denoiser meets them: means near 0 and variances near 1 say that its "
            "statistics fit the data"
        )
    rest = "" if found.get("normalised", True) else ". The spectrum is of channels scaled to variance 1"
    return f"Posterior means{images}, {scale}{rest}."


def _numbers(values: Any) -> list[float]:
    kept = isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)
    return [float(value) for value in values] if kept else []
