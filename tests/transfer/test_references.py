"""Mean activations of training pictures; `test_explanations.py` has the maps against them."""

import numpy as np
import pytest

from safelight.transfer import backbones, models
from safelight.transfer.features import FeatureLayer
from safelight.transfer.references import (
    choose,
    find_references,
    keep_references,
    read_references,
)


@pytest.fixture
def classifier(network, shapes):
    heads = [FeatureLayer("block3_add", "max"), FeatureLayer("block4_pool", "avg")]
    return models.build_classifier(network, heads, shapes.num_classes)


@pytest.fixture
def references(classifier, shapes):
    return find_references(classifier, shapes, engine="keras")


def test_references_are_means_of_the_other_classes(classifier, shapes, references):
    chosen = choose(shapes.labels, 0)
    labels = shapes.labels[chosen]
    pixels = np.stack([shapes.read(int(i)) for i in chosen])
    resized = np.asarray(backbones.find_resizing(classifier)(pixels), "float32")
    for name in models.layer_names(classifier):
        trunk = backbones.build_trunk(classifier, [name])
        seen = np.asarray(trunk.predict_on_batch(resized))
        means = np.stack([seen[labels == each].mean(0) for each in range(shapes.num_classes)])
        for said in range(shapes.num_classes):
            wanted = np.delete(means, said, axis=0).mean(0)
            found = references.other_than(name, [said])[0]
            np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=2e-3)


def test_many_classes_are_not_told_apart(classifier, shapes, monkeypatch):
    apart = find_references(classifier, shapes, engine="keras")
    monkeypatch.setattr("safelight.transfer.references.MAX_CLASSES", 1)
    together = find_references(classifier, shapes, engine="keras")
    for name, means in apart.means.items():
        found = together.other_than(name, [0, 1])
        np.testing.assert_allclose(found[0], means.astype(float).mean(0), rtol=2e-3, atol=2e-3)
        np.testing.assert_array_equal(found[0], found[1])


def test_pictures_are_dealt_from_all_classes():
    labels = np.repeat([0, 1, 2], [100, 50, 3])
    chosen = choose(labels, 0)
    assert len(set(chosen.tolist())) == len(chosen)
    assert np.bincount(labels[chosen]).tolist() == [24, 24, 3]
    many = choose(np.arange(1000) % 500, 0)
    assert len(many) == 96 == len(set((many % 500).tolist()))


def test_references_come_back_from_a_folder(references, tmp_path):
    assert read_references(tmp_path) is None
    keep_references(tmp_path, references)
    found = read_references(tmp_path)
    assert found.num_images == references.num_images
    for name, means in references.means.items():
        np.testing.assert_array_equal(found.means[name], means)
    (tmp_path / "references.npz").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"references\.npz is damaged .*train the run again"):
        read_references(tmp_path)
