from __future__ import annotations

import json

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.evaluation import classifier, classifier_for, frechet_distance, frechet_floor
from repae.evaluation.classifier import recipe_digest, stratified_split, train_classifier


@pytest.mark.slow
def test_recognises_held_out_digits(trained):
    """Its own error is far below what is asked of generated images: above .98 on digits it has not seen."""
    assert trained.classifier.held_out_accuracy >= 0.98


def test_the_recipe_is_what_the_digest_says(digits):
    """Whoever changes the classifier changes this digest, and with it every published comparison: never in passing."""
    assert recipe_digest(digits.images, digits.labels, 10) == "62759d9eb1ff"


def test_digest_depends_on_everything(digits, monkeypatch):
    """Other pixels, labels, classes or settings are another classifier."""
    images, labels = digits.images[:100], digits.labels[:100]
    base = recipe_digest(images, labels, 10)
    other = images.clone()
    other[3, 0, 5, 5] += 1
    digests = {base, recipe_digest(other, labels, 10), recipe_digest(images, labels.flip(0), 10)}
    digests.add(recipe_digest(images, labels, 11))
    monkeypatch.setattr(classifier, "STEPS", 201)
    digests.add(recipe_digest(images, labels, 10))
    assert len(digests) == 5


def test_split_is_stratified_and_complete(digits):
    """Every class gives a fifth to the held-out part, no image is in both or in none."""
    train, held_out = stratified_split(digits.labels)
    assert torch.equal(torch.cat([train, held_out]).sort().values, torch.arange(len(digits)))
    for label in range(10):
        total, out = int((digits.labels == label).sum()), int((digits.labels[held_out] == label).sum())
        assert abs(out - total / 5) <= 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_weights_depend_on_the_images_only(digits, monkeypatch, channels):
    """Threads and global random numbers change no bit of the classifier, and training it disturbs neither."""
    monkeypatch.setattr(classifier, "STEPS", 6)
    images, labels = digits.images[:200].repeat(1, channels, 1, 1), digits.labels[:200]
    states = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        before = torch.get_rng_state()
        states.append(train_classifier(images, labels, 10)[0].state_dict())
        assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    torch.set_num_threads(1)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.slow
def test_features_are_raw_and_repeat(trained):
    """64 non-negative features per image, not normalised, the same however many images come at once."""
    features, classes = trained.classifier.network.predict(trained.digits.images)
    assert features.shape == (1797, 64) and float(features.min()) == 0.0 and float(features.max()) > 1.0
    assert torch.allclose(
        features[:7], trained.classifier.network.predict(trained.digits.images[:7]).features, atol=1e-4
    )
    assert float((classes == trained.digits.labels).double().mean()) > 0.99


@pytest.mark.slow
def test_sees_a_lattice(trained):
    """Faint dots on every fourth pixel move the features, which an average-pooling stem would not feel."""
    dots = torch.zeros(32, 32)
    dots[::4, ::4] = 60
    printed = (trained.digits.images.float() + dots).clamp(0, 255).to(torch.uint8)
    real = trained.classifier.network.predict(trained.digits.images).features
    assert frechet_distance(trained.classifier.network.predict(printed).features, real) > frechet_floor(real)


@pytest.mark.slow
def test_is_kept_and_found_again(trained, monkeypatch):
    """A second evaluation loads the same network and trains nothing."""
    monkeypatch.setattr(classifier, "train_classifier", lambda *_: pytest.fail("trained again"))
    again = classifier_for(trained.digits.images, trained.digits.labels, 10, trained.cache)
    assert again[1:] == trained.classifier[1:]
    state, kept = trained.classifier.network.state_dict(), again.network.state_dict()
    assert all(torch.equal(state[key], kept[key]) for key in state)
    assert not again.network.training and not any(p.requires_grad for p in again.network.parameters())


def test_a_damaged_cache_is_made_anew(digits, monkeypatch, tmp_path):
    """A file cut short or altered is never trusted."""
    monkeypatch.setattr(classifier, "STEPS", 2)
    images, labels = digits.images[:100], digits.labels[:100]
    first = classifier_for(images, labels, 10, tmp_path)
    file = tmp_path / f"classifier-{first.digest}" / "classifier.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[:-100], whole[:-4] + b"\0\0\0\1", b""):
        file.write_bytes(damaged)
        assert classifier_for(images, labels, 10, tmp_path).weights == first.weights
        assert file.read_bytes() == whole
    record = file.with_name("classifier.json")
    record.write_text(json.dumps({"digest": "other"}))
    assert classifier_for(images, labels, 10, tmp_path).weights == first.weights


def test_other_sizes_are_refused():
    """The classifier is made for 32 px."""
    with refused(UserError, "32 px", "(64, 64)", "resize them"):
        classifier_for(torch.zeros(20, 1, 64, 64, dtype=torch.uint8), torch.zeros(20, dtype=torch.long), 2, None)
