import csv
import dataclasses
import functools
import json
import types

import keras
import numpy as np
import pytest

from safelight import datasets
from safelight.comparison import mean_over_splits
from safelight.folds import deal_folds
from safelight.metrics import brier_score, classification_metrics, expected_calibration_error
from safelight.runs import Run, list_runs
from safelight.transfer import backbones, experiment
from safelight.transfer.config import TrainConfig
from safelight.transfer.evaluation import report_on
from safelight.transfer.experiment import (
    add_learning_curve,
    deal_learned,
    load_classifier,
    predictions_table,
    run_training,
    settings_of,
    unseen_part,
)
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.repetition import pool_folds

pytestmark = pytest.mark.filterwarnings("ignore:Even though the:UserWarning")

CONFIG = TrainConfig(
    image_size=16,
    unfreeze_from="block3",
    head_layers=("block3_add/avg", "block4_pool/max"),
    epochs=2,
    views=2,
    batch_size=8,
    precision="float32",
)


@pytest.fixture(scope="module")
def dataset():
    return datasets.make_shapes(48, image_size=16, num_classes=2)


def train_into(
    folder, dataset, build_network, config=CONFIG, report=lambda *_: None, *, seeds=(0,), folds=()
):
    run = Run.create(folder / "run")
    graphs = keras.backend.backend() == "tensorflow"  # tracing takes longer than computing
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "load_backbone", lambda name, **_: build_network())
        if graphs:
            import tensorflow as tf

            tf.config.run_functions_eagerly(True)
        try:
            splits, *others = folds or [datasets.split(dataset, seed=seed) for seed in seeds]
            metrics = run_training(
                run,
                splits,
                config,
                dataset=dataset,
                others=others,
                report=report,
                cache=FeatureCache(folder / "features"),
            )
        finally:
            if graphs:
                tf.config.run_functions_eagerly(False)
    return run, metrics


@pytest.fixture(scope="module")
def trained(tmp_path_factory, dataset, build_network):
    return train_into(tmp_path_factory.mktemp("trained"), dataset, build_network)


def test_a_run_folder_is_complete(trained, dataset):
    run, metrics = trained
    assert run.finished
    assert json.loads((run.path / "metrics.json").read_text()) == json.loads(
        json.dumps(run.metrics)
    )
    for name in ("accuracy", "loss", "balanced_accuracy", "macro_f1", "roc_auc"):
        assert set(run.metrics[name]) >= {"value", "low", "high"}
        assert run.metrics[name]["value"] == pytest.approx(metrics[name]["value"])
    assert run.metrics["num_test"] == 12
    protocol = run.metrics["protocol"]
    expected = {
        "dataset": "shapes",
        "dataset_fingerprint": dataset.fingerprint,
        "split": "stratified",
        "seed": 0,
        "backbone": "vgg16",
        "cut": "block2_drop",
        "views": 2,
        "precision": "float32",
        "interrupted": False,
    }
    assert {key: protocol[key] for key in expected} == expected
    seconds = run.metrics["seconds"]
    assert seconds["total"] >= sum(seconds[k] for k in ("load", "extract", "head", "fine_tune"))
    assert run.config["settings"]["seed"] == 0
    assert {path.stem for path in run.pictures} >= {"history", "confusion_matrix", "metrics"}
    assert len(run.history["val_loss"]) == CONFIG.epochs + 1
    assert not [p.name for p in run.path.rglob("*") if "partial" in p.name]
    assert run.environment


def test_the_page_on_the_data_agrees_with_the_numbers(trained, dataset):
    run, _ = trained
    page = (run.path / "data.md").read_text(encoding="utf-8")
    data = run.metrics["data"]
    assert page.startswith("# The pictures of shapes\n")
    assert ("pictures/suspects.png" in page) == ("suspects" in {p.stem for p in run.pictures})
    for name in dataset.class_names:
        numbers = [data["num_per_part"][part][name] for part in ("train", "validation", "test")]
        assert sum(numbers) == np.sum(dataset.labels == dataset.class_names.index(name))
        assert f"| {name} | {' | '.join(str(number) for number in numbers)} |" in page
    # The shapes take turns, so no neighbours are alike.
    assert data["neighbours"]["agreement"] == 0
    assert data["neighbours"]["advice"] == ""


def test_the_saved_model_gives_the_judged_answers(trained, dataset):
    run, metrics = trained
    test = datasets.split(dataset, seed=0).test
    model = load_classifier(run)
    answers = keras.ops.convert_to_numpy(model(np.stack([test.read(i) for i in range(len(test))])))
    table = run.predictions
    written = np.array([table[f"p({name})"] for name in dataset.class_names], float).T
    np.testing.assert_allclose(answers, written, atol=1e-4)
    assert table["file"] == list(test.files)
    assert (np.array(table["prediction"]) == np.array(table["label"])).mean() == pytest.approx(
        run.metrics["accuracy"]["value"]
    )
    assert metrics["saved_model"]["max_difference"] < 1e-4
    assert metrics["saved_model"]["same_class"] == metrics["saved_model"]["num_images"] == 12


def test_settings_come_back(trained):
    assert settings_of(trained[0]) == CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "restore"}, "kind 'restore'"),
        ({"settings": {"backbone": "vgg16", "colour": 3}}, r"\['colour'\] are unknown"),
        ({"settings": {"epochs": -1}}, r"run: config\.json is damaged \("),
    ],
)
def test_settings_of_another_kind_or_version_are_refused(tmp_path, change, message):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "transfer", "settings": {}, **change})
    with pytest.raises(ValueError, match=message):
        settings_of(run)


def test_only_unseen_pictures_are_judged(trained, dataset):
    splits = datasets.split(dataset, seed=0)
    part, num_seen = unseen_part(trained[0], dataset)
    assert set(part.digests) == set(splits.test.digests)
    assert num_seen == len(splits.train) + len(splits.validation)
    others = datasets.make_shapes(6, image_size=16, num_classes=2, seed=9)
    part, num_seen = unseen_part(trained[0], others)
    assert (part.digests, num_seen) == (others.digests, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: datasets.split(d, seed=0).train, "were used to train"),
        (lambda d: dataclasses.replace(d, class_names=("square", "circle")), "trained on"),
        (lambda d: datasets.make_shapes(9, image_size=16, num_classes=3), "trained on"),
    ],
)
def test_nothing_unseen_or_other_classes_are_refused(trained, dataset, make, message):
    with pytest.raises(ValueError, match=message):
        unseen_part(trained[0], make(dataset))


@pytest.mark.parametrize(
    ("stage", "calls", "finishes"), [("extracting", 1, False), ("fine-tuning", 3, True)]
)
def test_ctrl_c_leaves_a_run_that_says_so(tmp_path, dataset, build_network, stage, calls, finishes):
    seen = []

    def report(name, *_):
        seen.append(name)
        if seen.count(stage) == calls and name == stage:
            raise KeyboardInterrupt

    if finishes:
        run, _ = train_into(tmp_path, dataset, build_network, report=report)
        assert run.metrics["protocol"]["interrupted"] is True
        assert len(run.history["val_loss"]) == 1
    else:
        with pytest.raises(KeyboardInterrupt):
            train_into(tmp_path, dataset, build_network, report=report)
        run = Run.open(tmp_path / "run")
        with pytest.raises(ValueError, match=r"no model\.keras.*did not finish"):
            load_classifier(run)
    assert run.finished == finishes
    assert [row.finished for row in list_runs(tmp_path)] == [finishes]
    assert settings_of(run) == CONFIG


def test_a_damaged_model_is_named(tmp_path):
    run = Run.create(tmp_path / "run")
    run.model_path.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"model\.keras is damaged"):
        load_classifier(run)


def test_a_model_that_would_run_code_is_refused(tmp_path):
    run = Run.create(tmp_path / "run")
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(run.model_path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_classifier(run)


def test_a_head_alone_makes_a_run_without_history(tmp_path, dataset, build_network):
    config = dataclasses.replace(CONFIG, unfreeze_from=None)
    run, metrics = train_into(tmp_path, dataset, build_network, config)
    assert run.finished
    assert not any(run.history.values())
    assert metrics["protocol"]["cut"] == "block4_pool"


def test_calibration_stands_beside_the_numbers(trained):
    run, _ = trained
    table, found = run.predictions, run.metrics["calibration"]
    rows = np.array([[float(x) for x in table[f"p({name})"]] for name in ("circle", "square")]).T
    labels = np.array([("circle", "square").index(name) for name in table["label"]])

    assert found["ece"] == pytest.approx(expected_calibration_error(labels, rows), abs=1e-4)
    assert found["brier"] == pytest.approx(brier_score(labels, rows), abs=1e-4)
    assert found["temperature"] == run.metrics["protocol"]["temperature"]


def test_several_splits_are_each_one_training_and_their_mean(tmp_path, dataset, build_network):
    config = dataclasses.replace(CONFIG, unfreeze_from=None)
    for name in ("0", "1", "all"):
        (tmp_path / name).mkdir()
    alone = [
        train_into(tmp_path / str(seed), dataset, build_network, config, seeds=(seed,))[1]
        for seed in (0, 1)
    ]
    run, metrics = train_into(tmp_path / "all", dataset, build_network, config, seeds=(0, 1))

    accuracies = [each["accuracy"]["value"] for each in alone]
    assert metrics["accuracy"] == alone[0]["accuracy"]
    assert metrics["splits"]["scores"]["accuracy"] == accuracies
    assert metrics["splits"]["mean"]["accuracy"]["value"] == pytest.approx(np.mean(accuracies))
    assert metrics["splits"]["seeds"] == [0, 1]
    assert metrics["splits"]["test_to_train"] == pytest.approx(1 / 3)
    assert "splits" not in alone[0]
    assert run.metrics["splits"] == json.loads(json.dumps(metrics["splits"]))
    fractions = {"test_fraction": 0.25, "validation_fraction": 0.15}
    assert run.config["split"]["asked"] == {**fractions, "splits": 2}


def test_ctrl_c_among_other_splits_leaves_a_run_of_the_first_alone(
    tmp_path, dataset, build_network
):
    """A training that was cut short there must not be one of those that are averaged."""
    seen = []

    def report(stage, done, *_):
        seen.append(stage)
        if stage == "other splits" and done == 1:
            raise KeyboardInterrupt

    for name in ("alone", "stopped"):
        (tmp_path / name).mkdir()
    config = dataclasses.replace(CONFIG, unfreeze_from=None)
    _, alone = train_into(tmp_path / "alone", dataset, build_network, config)
    run, found = train_into(
        tmp_path / "stopped", dataset, build_network, config, report=report, seeds=(0, 1, 2)
    )
    assert "other splits" in seen
    assert run.finished
    assert "splits" not in run.metrics
    assert run.metrics["accuracy"] == json.loads(json.dumps(alone["accuracy"]))
    assert found["protocol"]["stopped_splits"] == 3
    assert "stopped_splits" not in alone["protocol"]


def test_a_fine_tuning_that_was_stopped_is_no_split_among_others(dataset, monkeypatch):
    import safelight.transfer.repetition as repetition

    splits = [datasets.split(dataset, seed=seed) for seed in (0, 1)]
    stopped = types.SimpleNamespace(interrupted=True)
    monkeypatch.setattr(repetition, "train", lambda *_, **__: stopped)
    with pytest.raises(KeyboardInterrupt):
        repetition.judge_on_splits(splits, CONFIG)


def test_folds_judge_every_picture_once_and_are_pooled(tmp_path, dataset, build_network):
    config = dataclasses.replace(CONFIG, unfreeze_from=None)
    folds = deal_folds(dataset, num_folds=3)
    for name in ("second", "all"):
        (tmp_path / name).mkdir()
    second, alone = train_into(
        tmp_path / "second", dataset, build_network, config, folds=folds[1:2]
    )
    run, metrics = train_into(tmp_path / "all", dataset, build_network, config, folds=folds)
    found, accuracies = metrics["splits"], metrics["splits"]["scores"]["accuracy"]

    assert accuracies[:2] == [each["accuracy"]["value"] for each in (metrics, alone)]
    assert found["mean"]["accuracy"] == mean_over_splits(accuracies, test_to_train=1 / 2).to_dict()
    assert (found["num_folds"], found["test_to_train"]) == (3, 1 / 2)
    assert found["method"].startswith("3-fold cross-validation; Student's interval")
    assert metrics["protocol"]["fold"] == (0, 3)
    assert run.config["split"]["fold"] == [0, 3]
    assert run.config["split"]["asked"] == {"validation_fraction": 0.15, "folds": 3}

    with (run.path / "predictions_folds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(dataset.files)
    right = np.array([row["label"] == row["prediction"] for row in rows])
    for number, (each, accuracy) in enumerate(zip(folds, accuracies, strict=True)):
        here = [i for i, row in enumerate(rows) if row["fold"] == str(number)]
        assert here == each.indices["test"].tolist()
        assert right[here].mean() == pytest.approx(accuracy)
    for number, one in enumerate((run, second)):
        said = [float(row["p(circle)"]) for row in rows if row["fold"] == str(number)]
        wanted = [float(each) for each in one.predictions["p(circle)"]]
        np.testing.assert_allclose(said, wanted, atol=2e-6)  # rounding, on some backends
    assert found["pooled"]["num_test"] == len(dataset)
    assert found["pooled"]["accuracy"]["value"] == pytest.approx(right.mean())


@pytest.mark.parametrize("strategy", ["stratified", "grouped"])
def test_pooled_folds_are_all_pictures_in_their_order(dataset, strategy):
    data = dataclasses.replace(dataset, groups=np.arange(len(dataset)) // 4)
    folds = deal_folds(data, num_folds=3, strategy=strategy)
    said = np.random.default_rng(0).dirichlet([1, 1], len(data))
    judged = [
        report_on(
            each.test.labels,
            said[each.indices["test"]],
            class_names=data.class_names,
            files=each.test.files,
        )
        for each in folds
    ]
    pooled, numbers = pool_folds(folds, judged)
    groups = data.groups if strategy == "grouped" else None
    assert pooled.metrics == classification_metrics(data.labels, said, groups=groups)
    assert pooled.files == data.files
    for number, each in enumerate(folds):
        assert np.flatnonzero(numbers == number).tolist() == each.indices["test"].tolist()
    with pytest.raises(ValueError, match="expected all folds"):
        pool_folds(folds[:2], judged[:2])


def test_the_table_of_predictions_names_classes():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    judged = report_on(
        np.array([0, 1, 1]), probabilities, class_names=["cat", "dog"], files=["a", "b", "c"]
    )
    assert predictions_table(judged) == {
        "file": ["a", "b", "c"],
        "label": ["cat", "dog", "dog"],
        "prediction": ["cat", "cat", "dog"],
        "p(cat)": [0.9, 0.8, 0.3],
        "p(dog)": [0.1, 0.2, 0.7],
    }


def test_a_run_knows_which_pictures_belong_together(tmp_path, build_network):
    """A learning curve needs no rule: what it is dealt is the same with it and without."""
    shapes = datasets.make_shapes(200, image_size=16, num_classes=2)
    known = dataclasses.replace(shapes, groups=np.arange(200) // 5, grouped_by="(.)")
    config = dataclasses.replace(CONFIG, unfreeze_from=None, views=1)
    splits = datasets.split(known, seed=0, strategy="grouped")
    run, metrics = train_into(tmp_path, known, build_network, config, folds=(splits,))
    assert (metrics["protocol"]["split"], metrics["protocol"]["grouped_by"]) == ("grouped", "(.)")
    assert [int(g) for g in run.predictions["group"]] == splits.test.groups.tolist()
    assert "`--groups (.)`" in (run.path / "data.md").read_text()
    with_rule, without = (deal_learned(run, each) for each in (known, shapes))
    for one, other in zip(with_rule.splits, without.splits, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a.train.digests, a.test.digests) == (b.train.digests, b.test.digests)
            assert not set(b.test.groups.tolist()) & set(b.train.groups.tolist())


def test_a_learning_curve_leaves_the_test_part_alone(tmp_path, build_network, monkeypatch):
    import safelight.transfer.repetition as repetition

    shapes = datasets.make_shapes(120, image_size=16, num_classes=2)
    config = dataclasses.replace(CONFIG, unfreeze_from=None, test_views=2)
    run, before = train_into(tmp_path, shapes, build_network, config)
    used, train = [], repetition.train

    def spy(splits, *args, **options):
        for part in (splits.train, splits.validation, splits.test):
            used.extend(part.digests)
        return train(splits, *args, **options)

    monkeypatch.setattr(repetition, "train", spy)
    few = functools.partial(experiment.deal_sizes, num_repetitions=2)
    monkeypatch.setattr(experiment, "deal_sizes", few)
    monkeypatch.setattr(backbones, "load_backbone", lambda name, **_: build_network())
    cache = FeatureCache(tmp_path / "features")
    found = add_learning_curve(run, shapes, report=lambda *_: None, cache=cache)

    assert not set(used) & set(datasets.split(shapes, seed=0).test.digests)
    assert run.metrics["learning_curve"] == json.loads(json.dumps(found))
    assert {**run.metrics, "learning_curve": None} == {
        **json.loads(json.dumps(before)),
        "learning_curve": None,
    }
    assert "learning_curve" in {path.stem for path in run.pictures}
    assert found["expected"]["low"] <= found["expected"]["value"] <= found["expected"]["high"]
    assert found["num_all"] == 120 - before["num_test"]

    # The folders train and test of somebody's own, with the same picture in both.
    parts = np.where(np.arange(120) % 4 == 3, "test", "train")
    rows = np.arange(120)
    rows[3] = 0
    source = dataclasses.replace(shapes.source, rows=rows)
    digests = tuple(shapes.digests[row] for row in rows)
    given = dataclasses.replace(shapes, source=source, digests=digests, parts=tuple(parts))
    (tmp_path / "given").mkdir()
    run, _ = train_into(tmp_path / "given", given, build_network, config)
    used.clear()
    found = add_learning_curve(run, given, report=lambda *_: None, cache=cache)
    assert found["num_all"] == 90
    assert found["num_judged"] > 30

    with pytest.raises(ValueError, match=r"is not what .* was trained on"):
        add_learning_curve(run, shapes.subset(range(100)), report=lambda *_: None, cache=cache)
