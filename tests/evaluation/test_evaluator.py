from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch
from evaluation.fakes import FakeBundle, Memory, Random

from repae.evaluation import EvaluationConfig, Evaluator, Networks, classifier, unclassifiable
from repae.flow import Euler
from repae.runtime.precision import Precision

FP32 = Precision("fp32", torch.device("cpu"))
SETTINGS = EvaluationConfig(
    sampler=Euler(steps=2), batch_size=200, guided_images=300, comparison={"resamples": 0, "subsets": 2}
)
GENERATED = {"accuracy_guided", "accuracy", "fd", "fd_floor"}
NEIGHBOURS = {"nn_accuracy", "nn_accuracy_real", "precision", "recall", "density", "coverage"}
DISTANCES = {"nn_distance", "nn_distance_real", "copies"}
CLASSIFIER = {"kd_classifier", "precision_classifier", "recall_classifier"}
LATENT = {"latent_channels_used", "latent_high_frequency", "latent_probe_accuracy"}
AUTOENCODER = {"psnr", "ssim", "fixed_pattern"} | LATENT
FIGURES = GENERATED | NEIGHBOURS | DISTANCES | CLASSIFIER | AUTOENCODER | {"rfd_classifier"}
BESIDE = {"notes", "protocol", "latents"}
TABLES = {"intervals", "deviations", "warnings", "classes", "pairs"}


def _drawing_real(digits):
    """A source that gives, for each label in turn, the next real image of that class."""
    turn = dict.fromkeys(range(10), 0)

    def draw(labels):
        rows = []
        for label in labels.tolist():
            of_class = (digits.labels == label).nonzero()[:, 0]
            rows.append(of_class[turn[label] % len(of_class)])
            turn[label] += 1
        return digits.images[torch.stack(rows)]

    return draw


class Perfect(NamedTuple):
    bundle: FakeBundle
    labels: list
    result: dict


@pytest.fixture(scope="module")
def perfect(trained):
    """The evaluation of a generator that draws real images, with the labels it was asked for."""
    asked, real = [], _drawing_real(trained.digits)

    def draw(labels):
        asked.append(labels.clone())
        return real(labels)

    bundle = FakeBundle(draw)
    return Perfect(
        bundle, asked, Evaluator(bundle, trained.digits, SETTINGS, precision=FP32, cache=trained.cache).evaluate()
    )


@pytest.mark.slow
def test_a_perfect_generator_scores_perfectly(perfect):
    """The real images, drawn by label, give the ceiling of every figure, and are called what they are: copies."""
    result = perfect.result
    assert set(result) == FIGURES | BESIDE | TABLES and result["notes"] == []
    assert result["accuracy"] > 0.99 and result["accuracy_guided"] > 0.99
    assert 0 <= result["fd"] < 0.1 * result["fd_floor"] and result["fd_floor"] > 0
    assert result["precision"] == result["coverage"] == result["nn_accuracy"] == result["copies"] == 1.0
    assert result["psnr"] == 100.0 and result["ssim"] == pytest.approx(1.0) and result["fixed_pattern"] == 0.0


@pytest.mark.slow
def test_the_protocol_says_how(perfect, trained):
    """Everything that a second person needs to repeat the figures, as JSON."""
    protocol = json.loads(json.dumps(perfect.result))["protocol"]
    assert protocol["bundle"] == "live" and protocol["images"] == 1797 and protocol["guided_images"] == 300
    assert protocol["sampler"]["kind"] == "euler" and protocol["evaluations"] == 2 and protocol["seed"] == 0
    assert protocol["guidance"] == {"kind": "classifier-free", "scale": 2.0, "low": 0.0, "high": 0.85}
    assert protocol["classifier"]["digest"] == trained.classifier.digest
    assert protocol["data"]["fingerprint"] == trained.digits.fingerprint and "torch" in protocol["versions"]


@pytest.mark.slow
def test_labels_of_generated_images_follow_the_data(perfect, trained):
    """The Frechet distance compares sets with the same class shares; unguided batches are not doubled."""
    free, guided = torch.cat(perfect.labels)[:1797], torch.cat(perfect.labels)[1797:]
    counts = torch.bincount(trained.digits.labels)
    assert torch.equal(torch.bincount(free), counts)
    assert float((torch.bincount(guided) - counts * 300 / 1797).abs().max()) < 1
    assert perfect.bundle.batches == [200, 200] * 8 + [197, 197] + [200, 400, 100, 200]


@pytest.mark.slow
def test_noise_scores_nothing(trained):
    """Images without any digit: chance accuracy, a distance far above the floor, no precision."""
    generator = torch.Generator().manual_seed(0)

    def noise(labels):
        return torch.randint(256, (len(labels), 1, 32, 32), dtype=torch.uint8, generator=generator)

    bundle = FakeBundle(noise, lambda images: images // 2)
    settings = SETTINGS.replace(images=300)
    result = Evaluator(bundle, trained.digits, settings, precision=FP32, cache=trained.cache).evaluate()
    assert result["accuracy"] < 0.25 and result["precision"] == result["copies"] == 0.0
    assert result["fd"] > 20 * result["fd_floor"] and result["psnr"] < 20


def test_a_model_without_a_null_class_is_measured_unguided(monkeypatch):
    """No label dropout, no guidance: the figure is left out, the others stand. Any labelled 32 px images will do."""
    monkeypatch.setattr(classifier, "STEPS", 3)
    dataset = _memory()
    bundle = FakeBundle(lambda labels: dataset.images[: len(labels)])
    bundle.null_label = None
    result = Evaluator(bundle, dataset, SETTINGS.replace(images=20), precision=FP32).evaluate()
    assert set(result) == (FIGURES - {"accuracy_guided"}) | BESIDE | TABLES
    assert "null class" in result["notes"][0] and result["copies"] == 1.0


def _memory(n=40, size=32, classes=2):
    images = torch.randint(256, (n, 3, size, size), dtype=torch.uint8)
    return Memory(images, torch.arange(n) % classes, classes)


@pytest.mark.parametrize(
    ("dataset", "word"),
    [
        (_memory(size=64), "64"),
        (_memory(classes=1), "one class"),
        (_memory(n=15), "'class-1' has 7 images"),
        (
            Memory(torch.zeros(1, 3, 32, 32, dtype=torch.uint8).expand(20_002, -1, -1, -1), torch.arange(20_002) % 2),
            "too many",
        ),
    ],
)
def test_sets_that_cannot_be_classified_are_told_from_those_that_can(dataset, word):
    """Why a data set has no classifier is said in words."""
    assert word in unclassifiable(dataset)
    assert unclassifiable(_memory()) is None


def test_other_images_without_any_network_get_figures_of_the_autoencoder():
    """Large images and nothing at hand to compare them with: no image is generated, and the result says so."""
    bundle = FakeBundle(lambda labels: pytest.fail("generated"), lambda images: images.clamp_max(200))
    result = Evaluator(bundle, _memory(size=64), EvaluationConfig(images=10), precision=FP32).evaluate()
    assert set(result) == AUTOENCODER | BESIDE
    assert "Only the reconstruction" in result["notes"][0]


def test_other_images_are_compared_in_the_features_at_hand():
    """A folder that the classifier cannot take has every figure of its teacher, with reference and network named."""
    dataset = _memory(n=60, size=64)
    bundle = FakeBundle(lambda labels: dataset.images[: len(labels)], lambda images: images.clamp_max(200))
    networks = Networks([Random("teacher")], missing=["No FID: no weights."])
    settings = SETTINGS.replace(images=40, reference_images=50)
    result = Evaluator(bundle, dataset, settings, precision=FP32, networks=networks).evaluate()
    family = {f"{key}_teacher" for key in ("fd", "kd", "precision", "recall", "copies")} | {"rfd_teacher"}
    assert set(result) == AUTOENCODER | family | {"latent_cknna"} | BESIDE | TABLES
    assert "No figure of the classifier" in result["notes"][0] and result["notes"][1] == "No FID: no weights."
    pair = result["pairs"]["teacher"][0]
    assert pair["distance"] == pytest.approx(0, abs=1e-3)
    assert torch.equal(dataset.images[pair["generated"]], dataset.images[pair["real"]])
    protocol = json.loads(json.dumps(result["protocol"]))
    assert protocol["reference"]["images"] == 50
    assert protocol["networks"]["teacher"]["sha256"] == networks.extractors[0].digest
    assert "torch-fidelity" in protocol["versions"] and protocol["labels"].startswith("class shares")


@pytest.mark.slow
def test_the_digits_are_measured_class_by_class_too(perfect):
    """How many of each class were drawn and recognised."""
    rows = perfect.result["classes"]["classifier"]
    assert [row["class"] for row in rows] == list(range(10)) and min(row["accuracy"] for row in rows) > 0.95
