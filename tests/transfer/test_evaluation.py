import dataclasses

import numpy as np
import pytest
from keras.ops import convert_to_numpy
from scipy import stats
from sklearn import metrics as sk

from safelight.transfer import models
from safelight.transfer.config import TrainConfig
from safelight.transfer.evaluation import evaluate, report_on
from safelight.transfer.features import FeatureLayer
from safelight.transfer.prediction import Predictor, answer, predict, predict_probabilities

CONFIG = TrainConfig(image_size=16, unfreeze_from="block3", precision="float32")
HEAD = [FeatureLayer("block3_add", "avg"), FeatureLayer("block4_pool", "max")]


def random_answers(num_classes: int, num_images: int = 80, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(num_images) % num_classes)
    scores = rng.normal(size=(num_images, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    return labels, np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


SCORES = {
    "accuracy": lambda y, p: sk.accuracy_score(y, p.argmax(1)),
    "balanced_accuracy": lambda y, p: sk.balanced_accuracy_score(y, p.argmax(1)),
    "macro_f1": lambda y, p: sk.f1_score(y, p.argmax(1), average="macro"),
    "loss": sk.log_loss,
    "roc_auc": lambda y, p: (
        sk.roc_auc_score(y, p[:, 1])
        if p.shape[1] == 2
        else sk.roc_auc_score(y, p, multi_class="ovr")
    ),
}


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("groups", [None, np.arange(80) // 8])
def test_the_report_s_numbers_are_scikit_learn_s(num_classes, groups):
    labels, probabilities = random_answers(num_classes)
    names = [f"class {i}" for i in range(num_classes)]
    report = report_on(labels, probabilities, class_names=names, groups=groups)
    for name, score in SCORES.items():
        interval = report.metrics[name]
        assert interval.value == pytest.approx(score(labels, probabilities)), name
        assert interval.low <= interval.value <= interval.high, name
    np.testing.assert_array_equal(
        report.confusion_matrix, sk.confusion_matrix(labels, probabilities.argmax(1))
    )
    written = report.to_dict()
    assert written["num_test"] == 80
    assert set(written["accuracy"]) >= {"value", "low", "high"}
    assert [row["class_name"] for row in written["per_class"]] == names


def test_a_class_that_the_test_part_lacks_keeps_its_place():
    labels, probabilities = random_answers(3)
    keep = labels != 1
    report = report_on(labels[keep], probabilities[keep], class_names=["a", "b", "c"])
    assert report.confusion_matrix.shape == (3, 3)
    assert report.confusion_matrix[1].sum() == 0


@pytest.fixture
def classifier(network):
    model = models.build_classifier(network, HEAD, 2)
    rng = np.random.default_rng(0)
    model.get_layer(models.LOGITS).set_weights([rng.normal(size=(14, 2)), rng.normal(size=2)])
    return model


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"unfreeze_from": None},
        {"unfreeze_from": "block2"},
        {"unfreeze_from": "all"},
        {"pretrained": False},
        {"cached": False},
        {"epochs": 0},
    ],
)
def test_answers_do_not_depend_on_where_it_was_cut(eager, classifier, shapes, cache, options):
    head = tuple(str(layer) for layer in HEAD)
    config = dataclasses.replace(CONFIG, head_layers=head, **options)
    found = predict_probabilities(classifier, shapes, config=config, cache=cache)
    images = [shapes.read(i) for i in range(len(shapes))]
    answers = convert_to_numpy(classifier(np.stack(images)))
    np.testing.assert_allclose(found, answers, atol=1e-4)
    np.testing.assert_allclose(found, predict(classifier, images), atol=1e-4)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)


def test_one_picture_after_the_other_is_answered_as_all_together(classifier, shapes):
    images = [shapes.read(i) for i in range(3)]
    together, predictor = answer(classifier, images), Predictor(classifier)
    for row, image in enumerate(images):
        alone = predictor.answer(image)
        np.testing.assert_allclose(alone.logits[0], together.logits[row], atol=1e-4)
        np.testing.assert_allclose(alone.features[0], together.features[row], atol=1e-5)


def test_evaluating_is_reporting_on_the_answers(eager, classifier, shapes, cache):
    config = dataclasses.replace(CONFIG, head_layers=tuple(map(str, HEAD)))
    calls = []
    judged = evaluate(
        classifier, shapes, config=config, cache=cache, progress=lambda *a: calls.append(a)
    )
    assert calls[-1] == (12, 12)
    answers = predict_probabilities(classifier, shapes, config=config, cache=cache)
    np.testing.assert_array_equal(judged.probabilities, answers)
    assert judged.metrics["accuracy"].value == (answers.argmax(1) == shapes.labels).mean()
    assert judged.files == shapes.files


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_intervals_have_the_confidence_that_was_asked_for(
    eager, classifier, shapes, cache, confidence
):
    def wilson(right):
        test = stats.binomtest(int(right.sum()), len(right))
        ends = test.proportion_ci(confidence, method="wilson")
        return pytest.approx((ends.low, ends.high))

    config = dataclasses.replace(CONFIG, head_layers=tuple(map(str, HEAD)))
    judged = evaluate(classifier, shapes, config=config, cache=cache, confidence=confidence)
    right = judged.probabilities.argmax(1) == shapes.labels
    accuracy = judged.metrics["accuracy"]
    assert (accuracy.low, accuracy.high) == wilson(right)
    for index, row in enumerate(judged.per_class):
        assert (row.recall.low, row.recall.high) == wilson(right[shapes.labels == index])
