"""The sections of a report, each from a run's files to HTML; each says in words what it does not find."""

from __future__ import annotations

import math
from html import escape
from pathlib import PurePath
from typing import Any

from repae.report.charts import Points, bars, chart, number
from repae.report.figures import EVALUATED, FIGURES, GROUPS, PANELS, TEACHER, UNSHOWN, Figure
from repae.report.page import code, facts, folded, group, missing, picture, row, said, section, table
from repae.report.run_files import RunFiles
from repae.track import duration

PREVIEWS = 8


def header(run: RunFiles) -> str:
    name = str(run.of_recipe("name") or run.folder.name)
    about = run.of_recipe("about")
    parts = [f"<h1>{escape(name)}</h1>"]
    parts += [f"<p>{escape(str(about))}</p>"] if about else []
    parts.append(f"<p class='soft'>{escape(_how_it_ran(run))}</p>")
    tiles = _tiles(run.evaluation or {})
    if tiles:
        parts.append(f"<div class='tiles'>{''.join(tiles)}</div>")
    return "<header>" + "\n".join(parts) + "</header>"


def results(run: RunFiles) -> str:
    if run.evaluation is None:
        return section("results", "Results", missing("Not evaluated: there is no evaluation.json in this run."))
    figures = {key: value for key, value in run.evaluation.items() if _is_number(value)}
    rows, known = [], set()
    for title, members in GROUPS.items():
        present = [key for key in members if key in figures]
        rows += [group(title, 4)] if present else []
        for key in present:
            rows.append(_result(key, members[key], figures, run.evaluation))
            known |= {key, members[key].against}
    others = [key for key in figures if key not in known]
    if others:
        rows += [group("Other figures", 4), *(row(key, number(figures[key]), "", "") for key in others)]
    parts = [table(("figure", "value", "held against", "meaning"), rows)]
    parts += [missing(str(note)) for note in run.evaluation.get("notes", [])]
    protocol = run.evaluation.get("protocol")
    if isinstance(protocol, dict):
        parts.append(f"<p class='soft'>{escape(_protocol_line(protocol))}</p>")
        parts.append(folded("The whole protocol", facts(protocol)))
    else:
        parts.append(missing("The protocol of these figures was not kept."))
    return section("results", "Results", *parts)


def samples(run: RunFiles) -> str:
    if not run.generates:
        return ""
    path = run.picture("grid.png")
    if path is None:
        return section("samples", "Generated images", missing("No grid of samples was drawn (samples/grid.png)."))
    return section("samples", "Generated images", picture(path, f"Each row is one class. {_preview_line(run)}".strip()))


def over_time(run: RunFiles) -> str:
    previews = run.previews()
    if not previews:
        return section("time", "Over the training", missing("No previews were drawn (samples/step-*.png)."))
    count = min(PREVIEWS, len(previews))
    places = sorted({round(place * (len(previews) - 1) / max(count - 1, 1)) for place in range(count)})
    strip = "".join(picture(path, f"Step {step:,}") for step, path in (previews[place] for place in places))
    words = "The same noise and the same labels at each step, so that only the training differs."
    if not run.generates:
        words = "The same real images, their reconstructions and the differences at each step."
    if count < len(previews):
        words += f" {count} of {len(previews)} previews are shown; all lie in samples/."
    return section("time", "Over the training", f"<p>{escape(words)}</p>", f"<div class='strip'>{strip}</div>")


def reconstructions(run: RunFiles) -> str:
    path = run.picture("reconstructions.png")
    if path is None:
        words = "No reconstructions were drawn (samples/reconstructions.png)."
        return section("reconstructions", "Real and reconstructed", missing(words))
    caption = (
        "In rows of three: real images, their reconstructions by the autoencoder, and the difference, enlarged 8 times "
        "around mid-grey."
    )
    return section("reconstructions", "Real and reconstructed", picture(path, caption))


def gallery(run: RunFiles) -> str:
    """Every picture that `samples/gallery/gallery.json` lists, and what could not be drawn; nothing for a VAE alone."""
    if not run.generates:
        return ""
    if run.gallery is None:
        words = "No gallery was drawn (samples/gallery): `repae evaluate` draws it."
        return section("gallery", "Gallery", missing(words))
    listed = run.gallery.get("pictures")
    parts = []
    for entry in (entry for entry in (listed if isinstance(listed, list) else []) if isinstance(entry, dict)):
        title, file = str(entry.get("title", "")), PurePath(str(entry.get("file", ""))).name
        path = run.picture(f"gallery/{file}")
        if path is None:
            parts.append(missing(f"{title}: samples/gallery/{file} is gone."))
        else:
            parts.append(f"<h3>{escape(title)}</h3>{picture(path, str(entry.get('caption', '')))}")
    parts += [missing(str(note)) for note in run.gallery.get("notes", [])]
    return section("gallery", "Gallery", f"<div class='gallery'>{''.join(parts)}</div>")


def latents(run: RunFiles) -> str:
    """How strong each channel of the latents is, and how fine what they hold is."""
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
        about = (
            f"Share of the variance over places at each spatial frequency, 1 to {len(spectrum)} cycles per side. "
            "Coarse things are on the left; what falls towards the right is easier for a diffusion model."
        )
        points = [(k + 1.0, share) for k, share in enumerate(spectrum)]
        panels.append(chart("Spectrum", {"share": points}, about, "frequency"))
    if not panels:
        return section("latents", title, missing("There are no figures of channels or frequencies."))
    intro = f"<p>{escape(_of_latents(found))}</p>"
    return section("latents", title, intro, f"<div class='charts'>{''.join(panels)}</div>")


def curves(run: RunFiles) -> str:
    if not run.metrics:
        return section("curves", "Curves", missing("No metrics were logged (metrics.jsonl)."))
    keys = list(dict.fromkeys(key for record in run.metrics for key in record if key not in UNSHOWN))
    series = {key: [(float(r["step"]), float(r[key])) for r in run.metrics if key in r] for key in keys}
    idle = [key for key in keys if all(value == 0 for _, value in series[key])]
    charts, drawn = [], set(idle)
    unshown = [key for key in keys if key.startswith(EVALUATED) and not any(key in panel.keys for panel in PANELS)]
    drawn.update(unshown)
    for panel in PANELS:
        lines = {panel.keys[key]: series[key] for key in panel.keys if key in series and key not in idle}
        drawn |= set(panel.keys)
        charts += [chart(panel.title, lines, panel.about)] if lines else []
    charts += [chart(key, {key: series[key]}) for key in keys if key not in drawn]
    speed: Points = [
        (float(r["step"]), float(r["wall"]["images_per_second"]))
        for r in run.metrics
        if "images_per_second" in r.get("wall", {})
    ]
    charts += [chart("Speed", {"images per second": speed}, "On the machine named below.")] if speed else []
    parts = [f"<p>{escape(best)}</p>"] if (best := _best_line(run)) else []
    parts.append(f"<div class='charts'>{''.join(charts)}</div>")
    if unshown:
        names = ", ".join(key.removeprefix(EVALUATED) for key in unshown)
        parts.append(missing(f"Found during training too, and in metrics.jsonl: {names}."))
    if idle:
        parts.append(missing(f"Zero throughout, so not drawn: {', '.join(idle)}."))
    return section("curves", "Curves", *parts)


def teacher(run: RunFiles) -> str:
    title = "The teacher"
    if not run.teachers:
        words = "No figures of a teacher in this run (teacher.json): it had none, or one that was trained elsewhere."
        return section("teacher", title, missing(words))
    parts = ["<p>What the tokens that the denoiser is aligned to are worth. Labels serve these figures only.</p>"]
    for figures in run.teachers:
        rows = []
        for key, value in figures.items():
            if key.endswith("_raw"):
                continue
            raw = f"{said(figures[f'{key}_raw'])} before centring" if f"{key}_raw" in figures else ""
            rows.append(row(key.replace("_", " "), said(value), raw, TEACHER.get(key, "")))
        parts.append(table(("figure", "value", "", "meaning"), rows))
    return section("teacher", title, *parts)


def what_was_run(run: RunFiles) -> str:
    parts = []
    if run.recipe_text is None:
        parts.append(missing("The recipe of this run was not kept (recipe.yaml)."))
    else:
        parts.append(folded("The resolved recipe, every default included", code(run.recipe_text)))
    if run.environment is None:
        parts.append(missing("The environment of this run was not kept (environment.json)."))
    else:
        parts.append(folded("Versions, commit and hardware", facts(run.environment)))
    if run.damaged:
        parts.append(missing(f"There, but not readable: {', '.join(run.damaged)}."))
    return section("run", "What was run", *parts)


def _how_it_ran(run: RunFiles) -> str:
    words = []
    if kind := run.of_recipe("method.kind"):
        words.append(f"method {kind}")
    done, steps = run.steps_done(), run.of_recipe("loop.steps")
    if done:
        words.append(f"{done:,} of {steps:,} steps" if isinstance(steps, int) and done < steps else f"{done:,} steps")
    if batch := run.of_recipe("loop.batch_size"):
        words.append(f"batch {batch}")
    if (seed := run.of_recipe("seed")) is not None:
        words.append(f"seed {seed}")
    if (seconds := run.seconds()) is not None:
        words.append(f"{duration(seconds)} in the training loop")
    if run.environment and run.environment.get("device"):
        words.append(f"on {run.environment['device']}")
    return (", ".join(words) or "Nothing is known of how it ran") + "."


def _tiles(evaluation: dict[str, Any]) -> list[str]:
    shown = []
    for key in ("accuracy_guided", "accuracy", "fd", "psnr"):
        if _is_number(evaluation.get(key)):
            figure, floor = FIGURES[key], evaluation.get("fd_floor")
            words = figure.name
            if key == "fd" and floor:
                words += f", {evaluation[key] / floor:.1f} times its floor"
            shown.append(f"<div><b>{escape(figure.form.format(evaluation[key]))}</b><span>{escape(words)}</span></div>")
    return shown


def _result(key: str, figure: Figure, figures: dict[str, float], evaluation: dict[str, Any]) -> str:
    against = figures.get(figure.against) if figure.against else None
    held = f"{figure.form.format(against)}, {figure.against_words}" if against is not None else ""
    if isinstance(ends := _of(evaluation, "intervals").get(key), list):
        held = "; ".join(filter(None, [held, f"95%: {' to '.join(figure.form.format(end) for end in ends)}"]))
    beware = _of(evaluation, "warnings").get(key)
    meaning = f"{figure.meaning}. Beware: {beware}" if beware else figure.meaning
    return row(figure.name, figure.form.format(figures[key]), held, meaning)


def _of(evaluation: dict[str, Any], table: str) -> dict[str, Any]:
    found = evaluation.get(table)
    return found if isinstance(found, dict) else {}


def _protocol_line(protocol: dict[str, Any]) -> str:
    words = []
    if (images := protocol.get("images")) is not None:
        words.append(f"{images} images{' without guidance' if 'sampler' in protocol else ''}")
    if (guided := protocol.get("guided_images")) is not None and isinstance(protocol.get("guidance"), dict):
        g = protocol["guidance"]
        words.append(f"{guided} with guidance {g.get('scale')} for t in [{g.get('low')}, {g.get('high')}]")
    if isinstance(protocol.get("sampler"), dict):
        words.append(f"sampler {protocol['sampler'].get('kind')}, {protocol['sampler'].get('steps')} steps")
    if bundle := protocol.get("bundle"):
        words.append(f"weights {bundle!r}")
    if isinstance(classifier := protocol.get("classifier"), dict):
        accuracy = classifier.get("held_out_accuracy")
        held_out = f" ({accuracy:.1%} of held-out real images right)" if _is_number(accuracy) else ""
        words.append(f"classifier {classifier.get('digest')}{held_out}")
    return ("Measured with " + "; ".join(words) + ".") if words else ""


def _preview_line(run: RunFiles) -> str:
    sampler, guidance = run.of_recipe("preview.sampler"), run.of_recipe("preview.guidance")
    if not isinstance(sampler, dict) or not isinstance(guidance, dict):
        return ""
    return f"Sampler {sampler.get('kind')}, {sampler.get('steps')} steps, guidance {guidance.get('scale')}."


def _best_line(run: RunFiles) -> str:
    metric = (run.best or {}).get("metric")
    if run.best is None or not isinstance(metric, dict) or not metric:
        return ""
    name, value = next(iter(metric.items()))
    return f"The best checkpoint by {name} is that of step {run.best.get('step'):,}: {number(value)}."


def _of_latents(found: dict[str, Any]) -> str:
    images = f" of {found['images']:,} real images" if isinstance(found.get("images"), int) else ""
    if found.get("normalised", True):
        return (
            f"Posterior means{images}, after the normaliser, as the denoiser meets them: means near 0 and variances "
            "near 1 say that its statistics fit the data."
        )
    return (
        f"Posterior means{images}, as the encoder gives them: an autoencoder alone keeps no statistics. The spectrum "
        "is of channels scaled to variance 1."
    )


def _numbers(values: Any) -> list[float]:
    kept = isinstance(values, list) and all(isinstance(value, (int, float)) for value in values)
    return [float(value) for value in values] if kept else []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
