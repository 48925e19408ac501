from __future__ import annotations

import pytest
import torch
from errors import refused

from repae.config import UserError
from repae.evaluation import ClassifierFeatures, ImagesInMemory, TeacherFeatures
from repae.evaluation.classifier import Classifier
from repae.evaluation.settings import Dinov2Config, EmbeddedFeaturesConfig
from repae.models.teachers.embedded import EmbeddedTeacher, EmbeddedTeacherConfig
from repae.models.teachers.timm import TimmTeacher, TimmTeacherConfig

TINY = TimmTeacherConfig(name="vit_tiny_patch16_224.augreg_in21k", grid=2)


def _images(n=3, channels=3, size=32):
    return torch.randint(256, (n, channels, size, size), dtype=torch.uint8)


@pytest.fixture(scope="module")
def transformer():
    return TimmTeacher(TINY, load=False)


def test_the_class_token_is_timms_own(transformer):
    """What `forward_features` puts first, of the image as the teacher prepares it; the mean is of patch tokens only."""
    images = _images()
    with torch.no_grad():
        tokens = transformer.network.forward_features(transformer.preprocess(images))
    assert torch.equal(TeacherFeatures(transformer, "timm", "class")(images)["pool"], tokens[:, 0])
    assert torch.allclose(TeacherFeatures(transformer, "timm", "mean")(images)["pool"], tokens[:, 1:].mean(1))


def test_the_digest_says_weights_and_token(transformer):
    """Another token, another weight or another grid is another extractor; the path of the file is not."""
    base = TeacherFeatures(transformer, "timm", "class").digest
    other = TimmTeacher(TINY, load=False)
    other.network.load_state_dict(transformer.network.state_dict())
    assert TeacherFeatures(other, "timm", "class").digest == base != TeacherFeatures(other, "timm", "mean").digest
    with torch.no_grad():
        next(other.network.parameters()).view(-1)[0] += 1
    assert TeacherFeatures(other, "timm", "class").digest != base


def test_an_embedded_teacher_and_the_classifier_work_for_grey_images(tmp_path):
    """The digits have extractors without anything to download; the saved teacher is found by its folder."""
    teacher = EmbeddedTeacher(EmbeddedTeacherConfig())
    images = _images(5, 1)
    features = TeacherFeatures(teacher, "teacher", "mean")
    assert features.dim == 96 and torch.allclose(features(images)["pool"], teacher(images).mean(1))
    teacher.save(tmp_path)
    opened = EmbeddedFeaturesConfig(folder=str(tmp_path)).open(torch.device("cpu"))
    assert opened.digest == features.digest and torch.equal(opened(images)["pool"], features(images)["pool"])
    classifier = ClassifierFeatures(Classifier(1, 10).eval())
    assert classifier(images)["pool"].shape == (5, 64) and classifier.facts()["dim"] == 64
    with refused(UserError, "teacher embedded", "no class token", "mean"):
        TeacherFeatures(teacher, "teacher", "class")


def test_what_a_network_cannot_take_is_refused(transformer):
    """A network of RGB images names what it was given."""
    features = TeacherFeatures(transformer, "timm", "class")
    features.check(ImagesInMemory("grey", _images(2, 1)))
    features.channels = 3
    with refused(UserError, "3 channels", "grey has 1", "three times"):
        features.check(ImagesInMemory("grey", _images(2, 1)))


def test_missing_weights_of_dinov2_are_said():
    """The file that is not there, before anything is computed."""
    with refused(UserError, "nowhere.pth", "put it there"):
        Dinov2Config(weights="nowhere.pth").open(torch.device("cpu"))
