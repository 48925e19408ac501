"""The published recipe's two stages on the digits: tune jointly, export the VAE, cache its latents, train a fresh SiT.

The question it answers: is the VAE that was tuned end to end a better one to train on than the original, frozen both?
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from experiments.arms import (
    Results,
    Scale,
    carry_out,
    circumstances,
    command,
    mean_of,
    results_of,
    table,
    training,
    wins,
    write_digits,
)

JOINT = "joint"
ORIGINAL, TUNED = "original", "tuned"
VAES = {ORIGINAL: "vae", TUNED: JOINT}
"""The two autoencoders that are compared, and the run that each comes from."""

ARMS = {
    JOINT: "stage one: REPA-E, VAE and SiT together",
    "sit-original": "SiT, frozen original VAE",
    "sit-tuned": "SiT, frozen end-to-end-tuned VAE",
    "repa-original": "REPA, frozen original VAE",
    "repa-tuned": "REPA, frozen end-to-end-tuned VAE",
}
"""The runs that are evaluated, and what the table calls them."""


@dataclass(frozen=True)
class TwoStageScale(Scale):
    """``steps`` are those of the joint run and of each on a frozen autoencoder, ``vae_steps`` the original's, alone."""

    vae_steps: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vae_steps < 20:
            raise ValueError(f"{self.vae_steps} steps of the autoencoder: at least 20 are needed")


def two_stage(scale: TwoStageScale, runs: Path = Path("runs"), out: Path | None = None) -> Path:
    """Carries out both stages for every seed, and writes ``two-stage.md`` and ``two-stage.png`` to ``out``.

    Every arm of a seed shares teacher, initial denoiser and order of the data. What is done is not repeated, so an
    interrupted comparison goes on.

    Returns:
        The page.

    Raises:
        RuntimeError: one of the commands failed; its output is quoted.
    """
    home = runs / f"two-stage-{scale.steps}"
    with ThreadPoolExecutor(scale.jobs) as pool:
        for stage in (_original, _joint, _export, _cache, _fresh):
            jobs = [job for seed in range(scale.seeds) for job in stage(home, scale, seed)]
            list(pool.map(lambda job: carry_out(job[0], *job[1]), jobs))
    out = home if out is None else out
    write_digits(out / "two-stage.png", [home / f"{arm}-s0" for arm in ARMS])
    (out / "two-stage.md").write_text(page(home, scale), encoding="utf-8")
    return out / "two-stage.md"


Job = tuple[Path, list[list[str]]]
"""The file that says it is done, and the commands that lead to it."""


def _original(home: Path, scale: TwoStageScale, seed: int) -> list[Job]:
    """The autoencoder alone, briefly."""
    name = f"vae-s{seed}"
    return [(home / name / "report.html", [training("digits-vae", home, name, seed, scale.vae_steps)])]


def _joint(home: Path, scale: TwoStageScale, seed: int) -> list[Job]:
    """Stage one goes on with it, together with a SiT."""
    name = f"{JOINT}-s{seed}"
    start = {"start__kind": "weights", "start__path": home / f"vae-s{seed}", "teachers__0__seed": seed}
    words = training("digits", home, name, seed, scale.steps, **start)
    return [(home / name / "evaluation.json", [words, ["evaluate", str(home / name)]])]


def _export(home: Path, scale: TwoStageScale, seed: int) -> list[Job]:
    """Both autoencoders alone, as folders that need nothing of their runs."""
    jobs: list[Job] = []
    for which, run in VAES.items():
        out = _exported(home, which, seed)
        words = ["export", str(home / f"{run}-s{seed}"), "--part", "vae", "--out", str(out)]
        jobs.append((out / "repae.json", [words]))
    return jobs


def _cache(home: Path, scale: TwoStageScale, seed: int) -> list[Job]:
    """Latents of both autoencoders, with the teacher's tokens."""
    jobs: list[Job] = []
    for which in VAES:
        out = _latents(home, which, seed)
        teacher = f"[{{kind: embedded, seed: {seed}}}]"
        source = _exported(home, which, seed)
        words = ["cache", str(source), "--out", str(out), "--runs", str(home), "--teachers", teacher]
        jobs.append((out / "manifest.json", [[*words, "--runtime.device", "cpu", "--runtime.threads", "1"]]))
    return jobs


def _fresh(home: Path, scale: TwoStageScale, seed: int) -> list[Job]:
    """Stage two: a fresh SiT on each, without and with alignment."""
    jobs: list[Job] = []
    for method in ("sit", "repa"):
        for which in VAES:
            name = f"{method}-{which}-s{seed}"
            changes: dict[str, object] = {
                "start__kind": "weights",
                "start__path": _exported(home, which, seed),
                "latents__path": _latents(home, which, seed),
            }
            if method == "repa":
                changes["teachers__0__seed"] = seed
            words = training(f"digits-{method}", home, name, seed, scale.steps, **changes)
            jobs.append((home / name / "evaluation.json", [words, ["evaluate", str(home / name)]]))
    return jobs


def _exported(home: Path, which: str, seed: int) -> Path:
    return home / f"exported-{which}-s{seed}"


def _latents(home: Path, which: str, seed: int) -> Path:
    return home / f"latents-{which}-s{seed}"


def page(home: Path, scale: TwoStageScale) -> str:
    """The comparison as Markdown: the commands, the table, how to read it, the protocol."""
    results = results_of(home, list(ARMS), scale.seeds)
    return _PAGE.format(
        seeds=scale.seeds,
        steps=scale.steps,
        vae_steps=scale.vae_steps,
        table=table(results, ARMS),
        **circumstances(results, home / f"{JOINT}-s0"),
        **_verdict(results),
    )


def _verdict(results: Results) -> dict[str, str]:
    """The tuned autoencoder against the original at equal seeds, counted and not interpreted."""
    counted = {
        f"{method}_{key}": wins(results[f"{method}-tuned"], results[f"{method}-original"], key, better)
        for method in ("sit", "repa")
        for key, better in (("accuracy", 1), ("fd", -1), ("coverage", 1), ("precision", 1))
    }
    joint, frozen = mean_of(results[JOINT], "cpu_ms"), mean_of(results["sit-tuned"], "cpu_ms")
    return {
        **counted,
        "psnr_original": f"{mean_of(results['sit-original'], 'psnr'):.1f}",
        "psnr_tuned": f"{mean_of(results['sit-tuned'], 'psnr'):.1f}",
        "cost": f"{joint / frozen:.1f}",
    }


_PAGE = """\
# Two stages: tune together, then train on the frozen VAE

    python -m experiments.two_stage --seeds {seeds} --steps {steps} --vae-steps {vae_steps}

The published recipe trains jointly for 80 epochs, freezes the tuned VAE, and trains a fresh SiT on it for 800. This is
its path on the 1,797 embedded digits; the command wrote this page (`make two-stage` is the command at its defaults).
One seed by hand:

```
repae train digits-vae --name vae --loop.steps {vae_steps}
repae train digits --name joint --start.kind weights --start.path runs/vae --loop.steps {steps}
repae export runs/joint --part vae --out tuned
repae cache tuned --out latents-tuned --teachers '[{{kind: embedded}}]'
repae train digits-repa --name second --start.kind weights --start.path tuned --latents.path latents-tuned
repae evaluate runs/second
```

`tuned` is a folder that diffusers opens too, and the cache remembers the digest of its weights: a run on other weights
refuses it. The arms below differ in the autoencoder (the original one of
{vae_steps} steps alone, or the one that {steps} joint steps made of it) and in the alignment of the SiT; each trains a
fresh SiT for {steps} steps of 64 images from cached latents, REPA with cached teacher tokens too. All arms of a seed
share teacher, initial denoiser and order of the data. Mean ± standard deviation over the seeds, without guidance.

{table}

FD is the Frechet distance in the features of one fixed classifier, {images} generated against 1,797 real images; two
random halves of the real images are {floor:.2f} apart (the floor). Accuracy is that classifier's on generated images,
given their label. The diffusion loss (mean of the last {last} steps) is in each VAE's own normalised latents, and no
measure between VAEs. CPU time: one thread of {cpu}.

![One row per arm, in the order of the table: two unguided images of each digit from the same noise](two-stage.png)

## What it says, and what not

- Plain SiT on the tuned VAE against plain SiT on the original one, at equal steps and seeds: the higher accuracy in
  {sit_accuracy} seeds, the lower FD in {sit_fd}, the higher precision in {sit_precision}, the higher coverage
  in {sit_coverage}.
- REPA on the tuned VAE against REPA on the original one: the higher accuracy in {repa_accuracy} seeds, the lower FD in
  {repa_fd}, the higher precision in {repa_precision}, the higher coverage in {repa_coverage}.
- The tuned VAE has had {steps} more steps of training than the original, which improves its reconstruction as well:
  PSNR {psnr_tuned} dB against {psnr_original}. What the arms gain is owed to both, and this table does not tell them
  apart. Nor is the joint run that made the tuned VAE counted in the steps of its arms.
- A joint step costs {cost} times the CPU time of a step on cached latents.
- These are 8 x 8 scans enlarged to 32 px and {seeds} seeds. It shows the path; it does not reproduce the paper.

## Protocol

```json
{protocol}
```
"""


def main(argv: list[str] | None = None) -> int:
    """`python -m experiments.two_stage`."""
    about = "Tune VAE and SiT together, then train on the frozen VAE: the original one against the tuned one."
    return command(argv, about, TwoStageScale, two_stage)


if __name__ == "__main__":
    raise SystemExit(main())
