"""`repae sample`: images of a run in a folder that says what they are, by any number of processes, after any kill."""

from __future__ import annotations

import json
import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from repae.commands.sample_settings import PER_CLASS, RunAutoguidance, SampleSettings
from repae.config import UserError, json_digest, locked, write_atomic
from repae.flow import Guidance
from repae.flow.guidance import check_null_label
from repae.runs.context import RunContext, run_context, write_environment
from repae.runs.identity import differences
from repae.runs.open import Run, load
from repae.runtime.checkpoint import CheckpointStore
from repae.runtime.distributed import all_reduce_sum, barrier, is_main, world
from repae.runtime.migration import current_identity
from repae.sampling import (
    NpzOutput,
    Output,
    PngOutput,
    ShardOutput,
    Throughput,
    balanced_labels,
    draw,
    grid,
    grid_labels,
    missing_batches,
    random_labels,
    write_png,
)
from repae.track import ProgressBar, duration
from repae.training.state import BUNDLES

FORMATS: dict[str, type[Output]] = {"npz": NpzOutput, "png": PngOutput, "shards": ShardOutput}
MANIFEST, GRID = "manifest.json", "grid.png"
SCHEMA = 1
"""Version of the manifest, and of what an image is a function of."""

MOST_SHOWN, MOST_COLUMNS = 400, 20


class Sampled(NamedTuple):
    folder: Path
    words: str


def sample_run(folder: Path, settings: SampleSettings) -> Sampled:
    """Draws the images of a run that are not there yet; ``manifest.json`` beside them says what made them.

    Leaves ``samples.npz`` with ``arr_0`` ``[N, H, W, C]`` uint8 and ``labels`` ``[N]``, or ``png/``, or ``shards/``;
    ``grid.png`` of the first ones; ``environment.json``. Image i depends on the settings, its number and nothing else.

    Raises:
        UserError: no run, no checkpoint, an unknown class, guidance without a null class, a weaker run on other
            latents, or a folder with images of other settings.
    """
    run = load(folder, settings.bundle, step=settings.step)
    weak = _weaker(run, settings.guidance)
    if isinstance(settings.guidance, Guidance) and settings.guidance.scale > 1:
        check_null_label(run.bundle.null_label, settings.guidance)
    labels = chosen_labels(settings, run.bundle.num_classes)
    wished = settings.model_dump(include={"device", "precision"}, exclude_none=True)
    runtime = run.recipe.runtime.replace(**wished)
    with run_context(runtime, folder.parent) as context:
        what = identity(run, settings, context, weak)
        out = Path(settings.out) if settings.out else folder / "samples" / folder_name(what)
        if is_main():
            _claim(out, what, folder, context)
        barrier()
        output = FORMATS[settings.format](out, len(labels))
        drawn = _draw(run, weak, labels, output, settings, context)
        left = 0
        if is_main():
            # Parts are calls of their own, and two of them may be done at the same moment.
            with locked(out / "all.lock") if settings.part else nullcontext():
                left = _finish(output, labels, settings)
    return Sampled(out, _words(drawn, left, len(labels), settings))


def chosen_labels(settings: SampleSettings, num_classes: int) -> Int64[Tensor, " n"]:
    unknown = [label for label in settings.classes or () if label >= num_classes]
    if unknown:
        raise UserError(f"classes holds {unknown[0]}; this model has the classes 0 to {num_classes - 1}")
    chosen = torch.tensor(settings.classes or range(num_classes))
    if settings.num is not None:
        if settings.labels == "random":
            return chosen[random_labels(settings.num, len(chosen), settings.seed)]
        return chosen[balanced_labels(settings.num, len(chosen))]
    per_class = settings.per_class or PER_CLASS
    return chosen.repeat_interleave(per_class) if settings.classes else grid_labels(num_classes, columns=per_class)


def identity(run: Run, settings: SampleSettings, context: RunContext, weak: Run | None) -> dict[str, Any]:
    """Everything that an image is a function of besides its number, as plain values; batches and processes are not.

    The kind of device and its arithmetic are part of it: they move pixels by a level.
    """
    rows = {"per_class": settings.per_class or PER_CLASS} if settings.num is None else {"num": settings.num}
    guidance = settings.guidance.model_dump(mode="json", exclude={"run", "step"})
    recipe = run.recipe
    facts = {
        "schema": SCHEMA,
        "weights": _weights(run),
        "sampler": settings.sampler.model_dump(mode="json"),
        "guidance": guidance if weak is None else {**guidance, "weak": {"weights": _weights(weak), **_network(weak)}},
        "seed": settings.seed,
        "labels": {"rule": settings.labels, "classes": settings.classes or "all", **rows},
        "network": _network(run),
        "arithmetic": {
            "precision": context.precision.name,
            "device": context.device.type,
            "tf32": recipe.runtime.tf32 and context.device.type == "cuda",
        },
        "format": settings.format,
    }
    # As it will be read back: a tuple is a list there, and equal settings must be equal.
    return json.loads(json.dumps(facts))


def folder_name(what: dict[str, Any]) -> str:
    """A name for people, made unique by eight digits of the digest of ``what``."""
    sampler, guidance, labels = what["sampler"], what["guidance"], what["labels"]
    strength = "unguided"
    if guidance["scale"] > 1:
        kind = "cfg" if guidance["kind"] == "classifier-free" else "auto"
        whole = (guidance["low"], guidance["high"]) == (0, 1)
        strength = f"{kind}{guidance['scale']:g}" + ("" if whole else f"on{guidance['low']:g}-{guidance['high']:g}")
    words = (
        f"step{what['weights']['step']}",
        what["weights"]["bundle"],
        f"{sampler['kind']}{sampler.get('steps', '')}",
        strength,
        f"{labels['num']}images" if "num" in labels else f"{labels['per_class']}each",
        f"seed{what['seed']}",
        json_digest(what)[:8],
    )
    return "-".join(words)


def _weights(run: Run) -> dict[str, Any]:
    store, name = CheckpointStore(run.folder / "checkpoints"), run.bundle.name
    parts = next(parts for bundle, parts in BUNDLES.items() if bundle == name)
    return {"bundle": name, "step": run.step, "sha256": store.digest(store.at(run.step), parts)}


def _network(run: Run) -> dict[str, Any]:
    recipe = run.recipe
    return {
        "backbone": recipe.backbone.model_dump(mode="json"),
        "vae": recipe.vae.model_dump(mode="json"),
        "path": recipe.path.model_dump(mode="json"),
        "latent_eps": recipe.latent_norm.eps,
        "resolution": run.meta["resolution"],
        "image_channels": run.meta["image_channels"],
        "num_classes": run.bundle.num_classes,
    }


def _weaker(run: Run, guidance: Guidance | RunAutoguidance) -> Run | None:
    """The run that autoguidance leads away from, if it can: its latents must mean the same."""
    if not isinstance(guidance, RunAutoguidance):
        return None
    folder = run.folder if guidance.run is None else Path(guidance.run)
    weak = load(folder, run.bundle.name, step=guidance.step)
    for name, own, other in (
        ("latents of shape", run.bundle.latent_shape, weak.bundle.latent_shape),
        ("classes", run.bundle.num_classes, weak.bundle.num_classes),
        ("the path", run.recipe.path.model_dump(), weak.recipe.path.model_dump()),
    ):
        if own != other:
            raise UserError(f"guidance.run: {folder} has {name} {other}, {run.folder} has {own}; they must agree")
    ours, theirs = run.bundle.vae.state_dict(), weak.bundle.vae.state_dict()
    same = ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    # Within one joint run the autoencoder moves between checkpoints, which whoever names one of them accepts.
    if not same and folder.resolve() != run.folder.resolve():
        raise UserError(
            f"guidance.run: the autoencoder of {folder} is not that of {run.folder}, so their latents mean different "
            "things; use an earlier checkpoint of the same run (guidance.step), or a run on the same frozen autoencoder"
        )
    return weak


def _claim(out: Path, what: dict[str, Any], folder: Path, context: RunContext) -> None:
    """Makes the folder one of these settings; refuses one with images of other settings, or of unknown ones."""
    path = out / MANIFEST
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{path} cannot be read; give another --out, or remove that folder") from None
        if differing := differences(current_identity(before), what):
            raise UserError(
                f"{out} holds images of other settings: {differing}. Give another --out, or none, or remove that folder"
            )
        return
    if strange := [name for name in ("samples.npz", "png", "shards") if (out / name).exists()]:
        raise UserError(
            f"{out} holds {strange[0]} without a {MANIFEST} that says what made it; give another --out, or remove it"
        )
    try:
        write_atomic(
            path, json.dumps({"digest": json_digest(what), "run": str(folder), "identity": what}, indent=2) + "\n"
        )
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}; give another folder with --out") from None
    write_environment(out / "environment.json", context.device)


def _draw(
    run: Run, weak: Run | None, labels: Tensor, output: Output, settings: SampleSettings, context: RunContext
) -> Throughput:
    """Draws this process's batches; gives what all processes drew together."""
    part, parts = settings.share
    numbers = range(len(labels) * part // parts, len(labels) * (part + 1) // parts)
    size = min(settings.batch_size, max(1, -(-len(numbers) // world().size)))
    batches = missing_batches(numbers, output.present(), size, world())
    barrier()  # All have looked before anyone writes.
    began = time.monotonic()
    for used in (run, weak):
        if batches and used is not None:
            used.to(context.device)
    shown = is_main() and settings.progress and batches
    progress = ProgressBar(sum(map(len, batches)), "sample", show={}) if shown else None
    with nullcontext() if progress is None else closing(progress):
        drawn = draw(
            run.bundle,
            labels,
            batches,
            output,
            sampler=settings.sampler,
            path=run.recipe.path,
            precision=context.precision,
            guidance=settings.guidance,
            weak=None if weak is None else weak.bundle,
            seed=settings.seed,
            progress=progress,
        )
    counts = torch.tensor([drawn.images, drawn.evaluations], device=context.device, dtype=torch.float32)
    images, evaluations = all_reduce_sum(counts.double() if context.device.type != "mps" else counts).tolist()
    return Throughput(int(images), int(evaluations), time.monotonic() - began)


def _finish(output: Output, labels: Tensor, settings: SampleSettings) -> int:
    """Makes of the images what was asked for, if all are there; else how many are missing."""
    there = torch.zeros(len(labels), dtype=torch.bool)
    for numbers in output.present():
        there[numbers.start : numbers.stop] = True
    if not there.all():
        return int((~there).sum())
    if not (output.folder / GRID).exists():
        columns = min(settings.per_class or PER_CLASS, MOST_COLUMNS)
        shown = torch.from_numpy(output.take(min(len(labels), MOST_SHOWN))).permute(0, 3, 1, 2)
        write_png(output.folder / GRID, grid(shown, columns))
    output.finish(labels.numpy())
    return 0


def _words(drawn: Throughput, left: int, total: int, settings: SampleSettings) -> str:
    words = f"all {total} images were there" if not left else "no image of this part was missing"
    if drawn.images:
        rates = (f"{count / drawn.seconds:.3g} {name}/s" for count, name in zip(drawn, ("images", "evaluations")))
        words = f"{drawn.images} images in {duration(drawn.seconds)}: {', '.join(rates)}"
    return f"{words}; {left} of {total} images are missing still: the other parts of {settings.part}" if left else words
