from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser

import pytest
from errors import refused

from repae.config import UserError
from repae.report import build

SECTIONS = ["results", "samples", "time", "reconstructions", "gallery", "latents", "curves", "teacher", "notes", "run"]
VOID = {"meta", "img", "line", "polyline", "br"}


class Page(HTMLParser):
    """Collects ids, resources and pictures, and refuses tags that do not nest."""

    def __init__(self, text):
        super().__init__()
        self.text, self.open, self.ids, self.links, self.tags = text, [], [], [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                self.links.append(value)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"{tag} closes nothing"


def _page(folder):
    return Page(build(folder).read_text(encoding="utf-8"))


def test_every_section_is_there(run):
    """The report shows what was run, curves, pairs, grids, the table with its protocol, the teacher, the limits."""
    page = _page(run)
    assert page.ids == SECTIONS
    for words in (
        "0.994", "0.915", "3.0 times its floor", "39.7 dB", "8.91", "2.97", "half of the real images", "digest",
        "62759d9eb1ff", "weights &#x27;ema&#x27;", "Denoiser", "Gradient norms", "Latent scale", "Speed",
        "1,000 steps", "batch 64", "seed 3", "3 min 20 s", "before centring", "not known", "bits_per_dim",
    ):  # fmt: skip
        assert words in page.text, words


def test_nothing_is_loaded(run):
    """One file, opened anywhere, years later, without a network: no script, no link, no style from elsewhere."""
    page = _page(run)
    assert page.links and all(link.startswith("data:image/png;base64,") for link in page.links)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "video", "audio"}
    assert not re.search(r"https?://|@import|url\(", page.text)


def test_pictures_are_the_runs_own(run):
    """Every picture is inside, byte for byte; of many previews some are shown, the first and the last among them."""
    page = _page(run)
    inside = {base64.b64decode(link.partition(",")[2]) for link in page.links}
    for name in ("grid.png", "reconstructions.png"):
        assert (run / "samples" / name).read_bytes() in inside
    assert "Step 100<" in page.text and "Step 1,000<" in page.text
    assert "8 of 10 previews are shown" in page.text


def test_text_of_the_run_is_escaped(run):
    """A recipe may say anything; it stays text."""
    page = _page(run)
    assert "&lt;scanned&gt; digits &amp; a small VAE" in page.text and "<scanned>" not in page.text


def test_honest_notes(run):
    """What a demonstration is not, is said."""
    text = _page(run).text
    for words in ("not a reproduction", "cosine of 0.86", "three players", "one seed"):
        assert words in text, words
    assert "class='warn'" not in text


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("evaluation.json", ('"fixed_pattern": 0.0002', '"fixed_pattern": 0.37'), "prints a lattice"),
        ("evaluation.json", ('"copies": 0.01', '"copies": 0.4'), "may have memorised"),
        ("recipe.yaml", ("steps: 1000", "steps: 5000"), "not finished: 1000 of 5000"),
        ("metrics.jsonl", ('"latent_std_max": 3.2,', '"latent_std_max": 12.5,'), "deviation of 12.5"),
        ("recipe.yaml", ("class_mean_targets: false", "class_mean_targets: true"), "A control"),
    ],
)
def test_what_is_out_of_the_ordinary_is_told(run, name, change, words):
    """A lattice, copies, drifting latents, an unfinished run: figures that a reader would pass over."""
    path = run / name
    assert change[0] in path.read_text()
    path.write_text(path.read_text().replace(*change))
    assert words in _page(run).text


def test_an_empty_run_is_told_in_words(tmp_path):
    """A report can be built at any time; each missing piece is named instead of a crash or a silent gap."""
    page = _page(tmp_path)
    assert page.ids == SECTIONS
    for words in (
        "Not evaluated", "No grid of samples", "No previews", "No reconstructions", "No metrics",
        "No figures of a teacher", "recipe of this run was not kept", "environment of this run was not kept",
    ):  # fmt: skip
        assert words in page.text, words


@pytest.mark.parametrize(
    "name", ["recipe.yaml", "environment.json", "metrics.jsonl", "evaluation.json", "teacher.json"]
)
@pytest.mark.parametrize("content", [None, b"", b'{"step": [', b"\xff\xfe\0"])
def test_any_file_may_be_missing_or_damaged(run, name, content):
    """A run that died while writing is the one whose report is wanted most."""
    if content is None:
        (run / name).unlink()
    else:
        (run / name).write_bytes(content)
    page = _page(run)
    assert page.ids == SECTIONS
    assert content in (None, b"") or f"not readable: {name}" in page.text or name == "metrics.jsonl"


def test_reconstruction_only_says_so(run):
    """A folder of photographs has no classifier: the reason stands where the figures would."""
    note = "Only the reconstruction was evaluated, no generated image: 64 px."
    (run / "evaluation.json").write_text(json.dumps({"psnr": 30.25, "ssim": 0.9, "notes": [note]}))
    text = _page(run).text
    assert note in text and "30.2 dB" in text and "protocol of these figures was not kept" in text


def test_metrics_that_are_zero_or_unknown(run):
    """Losses that are switched off are named and not drawn; keys of other trainings get a chart of their own."""
    text = _page(run).text
    assert "Zero throughout, so not drawn: perceptual_loss, gan_loss, d_loss." in text
    assert "<h3>extra</h3>" in text and "<h3>Discriminator</h3>" not in text


def test_time_adds_up_over_resumes(run):
    """A clock that starts again at a resume adds to what was before."""
    path = run / "metrics.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records[50:]:
        record["wall"]["seconds"] -= 100
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert "3 min 20 s" in _page(run).text


def test_vae_only_previews_are_called_what_they_are(run):
    """The pictures of an autoencoder's training are reconstructions."""
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("kind: repa-e", "kind: vae"))
    assert "The same real images" in _page(run).text


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    """A mistyped name makes no empty report."""
    with refused(UserError, tmp_path / "none", "folder of a run", "`repae train`"):
        build(tmp_path / "none")


def test_the_gallery_is_shown_with_its_captions(run):
    """Every listed picture with its title and words; a file that is not in the gallery's folder is not shown."""
    text = _page(run).text
    for words in (
        "<h3>Across &lt;scales&gt;</h3>", "Sampler euler, 25 steps, weights &#x27;ema&#x27;.",
        "fewer than two are there", "Elsewhere: samples/gallery/secret.png is gone",
    ):  # fmt: skip
        assert words in text, words
    (run / "samples" / "gallery" / "gallery.json").unlink()
    assert "`repae evaluate` draws it" in _page(run).text
    (run / "samples" / "gallery" / "gallery.json").write_text("{")
    assert "not readable: samples/gallery/gallery.json" in _page(run).text


def test_the_latents_are_drawn(run):
    """A bar for each channel's variance and mean, the spectrum, and whether they are normalised."""
    text = _page(run).text
    part = text[text.index("id='latents'") : text.index("id='curves'")]
    assert part.count("<rect") == 6 and "Spectrum over frequency" in part
    assert "<title>2: 1.44</title>" in part and "1,797 real images, after the normaliser" in part
    evaluation = json.loads((run / "evaluation.json").read_text())
    evaluation["latents"]["normalised"] = False
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert "an autoencoder alone keeps no statistics" in _page(run).text
    del evaluation["latents"]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert "The latents were not looked at" in _page(run).text


def test_figures_found_during_training_are_curves(run):
    """Those that matter are drawn, the others named, and the best checkpoint is said."""
    with (run / "metrics.jsonl").open("a") as file:
        for step in (1010, 1020):
            file.write(json.dumps({"step": step, "eval_fd": 9.0 - step / 1000, "eval_density": 0.5}) + "\n")
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "best.json").write_text(json.dumps({"step": 1020, "metric": {"eval_fd": 7.98}}))
    text = _page(run).text
    assert "Frechet distance over training steps" in text and "eval_density over" not in text
    assert "Found during training too, and in metrics.jsonl: density." in text
    assert "The best checkpoint by eval_fd is that of step 1,020: 7.98." in text
