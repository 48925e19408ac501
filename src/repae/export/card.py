"""The model card of an exported folder: what it is, how it was made, what it is worth, and how to open it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_NO_LICENCE = (
    "Not stated. Weights inherit the terms of the images, the teacher and the autoencoder that they were made from; "
    "whoever publishes this folder states the licence."
)

_PIPELINE_USE = """\
```python
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
images = pipe(class_labels=[0, 1, 2], seed=0).images
```

`FOLDER` is this folder, or the name of this repository on the hub. The code that is trusted is `pipeline.py` and the
file beside each part's weights; it needs torch and diffusers only. Image i depends on (seed, i) alone. `sampler` is
`euler` or `heun` (probability-flow ODE) or `euler-maruyama` (SDE); `guidance_scale` acts for times in
[`guidance_low`, `guidance_high`], where 1 is noise and 0 is data."""

_KL_USE = """\
```python
from diffusers import AutoencoderKL

vae = AutoencoderKL.from_pretrained(FOLDER)
```"""

_TINY_USE = """\
```python
from diffusers import AutoModel

vae = AutoModel.from_pretrained(FOLDER, trust_remote_code=True)
```

The code that is trusted is `tiny_autoencoder.py`; it needs torch and diffusers only."""

_NORMALISATION = """\
`encode` gives latents as they are. A generator sees `(latent - latents_mean) / latents_std`, per channel, with the two
lists in the autoencoder's `config.json`; `scaling_factor` is 1 and there is no shift, so nothing is applied twice.
Before `decode`: `latent * latents_std + latents_mean`."""

_OWN_GENERATOR = """\
This autoencoder {origin}. **It needs a generator trained on it**: its latents are not those of the autoencoder that it
began as, and a generator for that one draws noise or wrong colours here."""


@dataclass(frozen=True)
class Card:
    """What a card is written from.

    Attributes:
        training: its length, in words.
        origin: how the autoencoder came about, in words.
        figures: of the evaluation, with "protocol", where there was one.
        licence: an identifier such as ``apache-2.0``, or None.
        generator: a denoiser is in the folder, not only an autoencoder.
        tiny: the autoencoder is the tiny one, whose class is in the folder.
        digests: of the weights, by part.
    """

    name: str
    about: str
    recipe: dict[str, Any]
    training: str
    origin: str
    bundle: str
    data: str
    figures: dict[str, Any] | None
    licence: str | None
    generator: bool
    tiny: bool
    digests: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        use = _PIPELINE_USE if self.generator else _TINY_USE if self.tiny else _KL_USE
        parts = [
            self._header(),
            f"# {self.name}",
            self.about,
            f"## Use\n\n{use}",
            f"## Latents\n\n{_NORMALISATION}\n\n{_OWN_GENERATOR.format(origin=self.origin)}",
            f"## How it was made\n\n{self._making()}",
            f"## Figures\n\n{self._figures()}",
            f"## Licence\n\n{self.licence or _NO_LICENCE}",
        ]
        return "\n\n".join(part for part in parts if part) + "\n"

    def _header(self) -> str:
        tags = ["repae", "repa-e", "autoencoder", *(["sit", "class-conditional"] if self.generator else [])]
        task = ["pipeline_tag: unconditional-image-generation"] if self.generator else []
        lines = [f"license: {self.licence or 'other'}", "library_name: diffusers", *task, "tags:"]
        return "\n".join(["---", *lines, *(f"- {tag}" for tag in tags), "---"])

    def _making(self) -> str:
        recipe = self.recipe
        rows = {
            "method": recipe["method"]["kind"],
            "steps": self.training,
            "weights": f"bundle `{self.bundle}`",
            "data": self.data,
            "teachers": ", ".join(item.get("name") or item["kind"] for item in recipe["teachers"]) or "none",
            "path": recipe["path"]["kind"],
            **{f"digest of the {name}": f"`{value}`" for name, value in self.digests.items()},
        }
        table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
        notes = "\n".join(f"- {note}" for note in self.notes)
        return "\n\n".join(part for part in (table, notes, "`recipe.yaml` holds every setting.") if part)

    def _figures(self) -> str:
        if not self.figures:
            return "None were measured before the export."
        numbers = {name: value for name, value in self.figures.items() if isinstance(value, (int, float))}
        table = "\n".join(
            ["| figure | value |", "|---|---|", *(f"| {key} | {num:.4g} |" for key, num in numbers.items())]
        )
        protocol = self.figures.get("protocol", {})
        words = ", ".join(
            f"{name} {protocol[name]}"
            for name in ("images", "guided_images", "sampler", "evaluations", "guidance", "seed", "bundle", "step")
            if name in protocol
        )
        return f"{table}\n\nProtocol: {words or 'not recorded'}."
