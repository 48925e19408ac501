"""What the figures of a run do not say, derived from its own files."""

from __future__ import annotations

from html import escape

from repae.report.page import section
from repae.report.run_files import RunFiles

DRIFT = 6.0
LATTICE = 0.05
COPIES = 0.05


def notes(run: RunFiles) -> str:
    items = [f"<li class='warn'>{escape(text)}</li>" for text in warnings(run)]
    items += [f"<li>{escape(text)}</li>" for text in limits(run)]
    return section("notes", "What these figures do not say", f"<ul>{''.join(items)}</ul>")


def limits(run: RunFiles) -> list[str]:
    """What a careful reader should know before quoting anything from this page."""
    found = ["One run with one seed: differences of a few points between two such runs are noise."]
    kinds = [teacher.get("kind") for teacher in run.of_recipe("teachers") or [] if isinstance(teacher, dict)]
    if "embedded" in kinds:
        found.append(
            "Tiny teacher, trained without labels on the images of this run: a demonstration of the mechanism, not a "
            "reproduction of the paper."
        )
    label_cosines = [teacher["label_cosine"] for teacher in run.teachers if "label_cosine" in teacher]
    if label_cosines:
        found.append(
            f"The mean token of a class and place alone reaches a cosine of {label_cosines[0]:.2f} with the teacher's "
            "tokens: much of what alignment teaches could be had from the label that the denoiser is given."
        )
    if run.of_recipe("class_mean_targets"):
        found.append("A control: its alignment targets are means over class and place and hold nothing of the image.")
    if run.traits is not None and len(run.traits.trains) == 3 and run.of_recipe("losses.discriminator_weight") == 0:
        found.append("The discriminator's weight is 0 in this recipe: two of the method's three players took part.")
    if run.evaluation and "accuracy_guided" in run.evaluation:
        found.append(
            "Guidance brings accuracy near its ceiling for good and middling models alike: read the figures without "
            "guidance, hold the Frechet distance against its floor, and look at the images."
        )
    if run.evaluation and "fd" in run.evaluation:
        found.append(
            "The real images that figures are held against are those the model was trained on: closeness to them is "
            "wanted, copies of them are not, which is why the distance to the nearest one is given."
        )
    return found


def warnings(run: RunFiles) -> list[str]:
    found = []
    done, steps = run.steps_done(), run.of_recipe("loop.steps")
    if isinstance(steps, int) and done < steps:
        found.append(f"The run is not finished: {done} of {steps} steps are logged.")
    evaluation = run.evaluation or {}
    if evaluation.get("fixed_pattern", 0) > LATTICE:
        found.append(
            f"{evaluation['fixed_pattern']:.0%} of the reconstruction error is one repeated pattern: the decoder "
            "prints a lattice. Look at the differences above."
        )
    if evaluation.get("copies", 0) > COPIES:
        found.append(
            f"{evaluation['copies']:.0%} of the generated images are nearer to a training image than 99% of real "
            "images are to each other: the model may have memorised some."
        )
    drift = max((record.get("latent_std_max", 0.0) for record in run.metrics), default=0.0)
    if drift > DRIFT:
        found.append(
            f"A latent channel reached a standard deviation of {drift:.1f}: the scale drifted. The normaliser takes it "
            "out; decode with the statistics of the same bundle only."
        )
    return found
