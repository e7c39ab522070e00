import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from safelight import datasets
from safelight.runs import Run
from safelight.transfer import models, unfamiliar
from safelight.transfer.config import TrainConfig
from safelight.transfer.experiment import run_training
from safelight.transfer.familiarity import fit_familiarity
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.prediction import answer, predict_features
from safelight.transfer.training import train

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture
def tiny(monkeypatch, build_network):
    """A network of milliseconds in the place of VGG16; its blocks 2 and 4 feed the head."""
    network = build_network()
    monkeypatch.setattr("safelight.transfer.backbones.load_backbone", lambda *a, **k: network)
    return TrainConfig(
        image_size=16, head="kernel", head_layers=("block2_add/avg", "block4_pool/max"),
        precision="float32",
    )  # fmt: skip


def test_features_are_the_same_from_the_cache_and_from_pixels(tiny, splits, cache):
    trained = train(splits, tiny, cache=cache)
    kept = predict_features(trained.model, splits.test, config=tiny, cache=cache)
    direct = answer(trained.model, (splits.test.read(i) for i in range(len(splits.test))))
    np.testing.assert_allclose(kept, direct.features, atol=1e-4)
    assert kept.shape == (len(splits.test), sum(models.head_widths(trained.model)))


def test_features_of_a_fine_tuned_network_are_those_it_has_now(tiny, splits, cache):
    import dataclasses

    config = dataclasses.replace(
        tiny, head="logistic", head_layers=("block4_pool/avg",), unfreeze_from="block4",
        learning_rate=1e-2, epochs=1,
    )  # fmt: skip
    trained = train(splits, config, cache=cache)
    kept = predict_features(trained.model, splits.test, config=config, cache=cache)
    direct = answer(trained.model, (splits.test.read(i) for i in range(len(splits.test))))
    np.testing.assert_allclose(kept, direct.features, atol=1e-4)
    frozen = predict_features(
        train(splits, tiny, cache=cache).model, splits.test, config=tiny, cache=cache
    )
    assert kept.shape[1] < frozen.shape[1]


def test_features_of_the_picture_itself_cost_one_view(tiny, splits, cache, tmp_path):
    import dataclasses

    config = dataclasses.replace(tiny, test_views=2)
    trained = train(splits, config, cache=cache)
    fresh = FeatureCache(tmp_path / "fresh")
    predict_features(trained.model, splits.test, config=config, cache=fresh)
    assert {each.facts["view"] for each in fresh.entries()} == {0}


def test_nothing_to_look_at_has_no_features(tiny, splits, cache):
    trained = train(splits, tiny, cache=cache)
    nothing = predict_features(trained.model, splits.test.subset([]), config=tiny, cache=cache)
    assert nothing.shape == (0, sum(models.head_widths(trained.model)))


def test_pictures_of_one_group_are_not_so_many_witnesses(tiny, splits, cache):
    import dataclasses

    trained = train(splits, tiny, cache=cache)
    known = unfamiliar.learn_familiarity(trained, splits, cache=cache)
    test = dataclasses.replace(splits.test, groups=np.zeros(len(splits.test), int))
    grouped = dataclasses.replace(splits, test=test, strategy="grouped")
    wide, narrow = (
        unfamiliar.judge_familiarity(known, trained, each, cache=cache).refused[0.1]
        for each in (grouped, splits)
    )
    assert wide.value == narrow.value
    assert wide.high - wide.low > narrow.high - narrow.low


def test_copies_and_groups_count_once(tiny, splits, cache):
    import dataclasses

    trained = train(splits, tiny, cache=cache)
    train_part = dataclasses.replace(splits.train, groups=np.arange(len(splits.train)) // 10)
    validation = dataclasses.replace(splits.validation, groups=np.zeros(len(splits.validation)))
    grouped = dataclasses.replace(
        splits, train=train_part, validation=validation, strategy="grouped"
    )
    assert unfamiliar.learn_familiarity(trained, grouped, cache=cache) is None
    assert unfamiliar.learn_familiarity(trained, splits, cache=cache) is not None


def test_a_run_keeps_what_is_familiar_to_it(tiny, splits, cache, tmp_path):
    run = Run.create(tmp_path / "run")
    dataset = datasets.make_shapes(48, image_size=16, num_classes=2)
    metrics = run_training(run, splits, tiny, dataset=dataset, report=lambda *a: None, cache=cache)
    found = metrics["familiarity"]
    assert set(found["refused"]) == {"0.01", "0.05", "0.1"}
    assert set(found["left_out_auroc"]) == set(dataset.class_names)
    assert len(run.predictions["distance"]) == len(splits.test)
    noise = np.random.default_rng(0).uniform(size=(8, sum(unfamiliar.read_familiarity(run).widths)))
    judged = unfamiliar.judge_foreign(run, noise)
    assert (judged["num_foreign"], judged["num_familiar"]) == (8, len(splits.test))
    assert 0 <= judged["auroc"] <= 1


def test_a_class_left_out_is_told_from_the_others():
    rng = np.random.default_rng(0)
    profiles = np.array([[9.0, 1, 1], [1, 9.0, 1], [1, 1.2, 8.0]])

    def draw(number):
        labels = np.arange(number) % 3
        return labels, rng.gamma(50, profiles[labels] / 50).astype("float32")

    (labels, features), (test_labels, test_features) = draw(90), draw(60)
    learned, test = (
        datasets.ImageDataset.from_arrays(
            rng.integers(0, 255, (len(of), 8, 8, 3)).astype("uint8"), of,
            class_names=("a", "b", "c"), near_duplicates=False,
        )
        for of in (labels, test_labels)
    )  # fmt: skip
    found = unfamiliar.leave_classes_out(fit_familiarity(features), learned, test_features, test)
    assert set(found) == {"a", "b", "c"}
    assert min(found.values()) > 0.99
    distances = fit_familiarity(features[labels != 1], widths=[3]).distances(test_features)
    foreign = test_labels == 1
    assert found["b"] == unfamiliar.separation(distances[~foreign], distances[foreign])


def test_separation_is_the_probability_of_a_larger_distance():
    rng = np.random.default_rng(0)
    familiar, foreign = rng.normal(size=30).round(1), rng.normal(0.7, size=20).round(1)
    expected = mannwhitneyu(foreign, familiar).statistic / 600
    assert unfamiliar.separation(familiar, foreign) == pytest.approx(expected)
