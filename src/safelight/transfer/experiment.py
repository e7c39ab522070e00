"""From data to a run folder: model, numbers, pictures and the protocol that made them."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from scipy.special import softmax

from safelight import known_pictures, plots
from safelight.datasets import ImageDataset, Splits
from safelight.locks import alone
from safelight.metrics import brier_score, confident_mistakes, expected_calibration_error
from safelight.runs import Run, atomic_path
from safelight.trained_runs import load_model, read_settings
from safelight.transfer import album
from safelight.transfer.config import TrainConfig
from safelight.transfer.data_page import describe_data, describe_dataset, render_data_page
from safelight.transfer.evaluation import ClassificationReport, evaluate
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.fine_tuning import Report
from safelight.transfer.label_check import DOUBT, find_suspects
from safelight.transfer.prediction import predict, predict_probabilities
from safelight.transfer.references import find_references, keep_references
from safelight.transfer.repetition import judge_on_splits, pool_folds, summarize_splits
from safelight.transfer.run_comparison import GROUP
from safelight.transfer.training import TrainedClassifier, train
from safelight.transfer.training_sizes import (
    COVERAGE,
    DealtSizes,
    MeasuredCurve,
    deal_sizes,
    measure_learning_curve,
    round_steps,
)
from safelight.transfer.unfamiliar import DISTANCE, JudgedFamiliarity, keep_familiarity

logger = logging.getLogger(__name__)

_PARITY_IMAGES = 16


@alone
def run_training(
    run: Run,
    splits: Splits,
    config: TrainConfig,
    *,
    dataset: ImageDataset,
    report: Report,
    cache: FeatureCache | None = None,
    others: Sequence[Splits] = (),
) -> dict[str, Any]:
    """Trains, judges on the test part, and writes it all into a run folder, metrics last.

    Ctrl-C while `others` are trained leaves a finished run that was judged on `splits` alone.

    Args:
        run: A fresh run folder.
        splits: The data set's parts.
        config: What to train and how.
        dataset: The whole data set.
        report: Told how far it is.
        cache: Where activations are kept.
        others: More splits of the data set, or the other folds, to train and judge on as well; the
            model is that of `splits`.

    Returns:
        What was written to `metrics.json`.
    """
    started = time.perf_counter()
    described = _describe(dataset, splits, config, num_splits=1 + len(others))
    run.write_config(described)
    run.write_environment()
    trained = train(splits, config, cache=cache, report=report)
    with atomic_path(run.model_path) as path:
        trained.model.save(path)
    run.write_history(trained.history)
    groups, before_test = splits.groups_of(splits.test), time.perf_counter()
    judged = evaluate(
        trained.model,
        splits.test,
        config=config,
        cache=cache,
        progress=lambda done, total: report("evaluating", done, total, "test images"),
        groups=groups,
    )
    seconds = {**trained.seconds, "evaluate": time.perf_counter() - before_test}
    familiar = keep_familiarity(run, trained, splits, cache=cache)
    before_usual = time.perf_counter()
    usual = find_references(trained.model, splits.train, engine=config.engine)
    seconds["references"] = time.perf_counter() - before_usual
    keep_references(run.path, usual)
    run.write_predictions(predictions_table(judged, familiar, groups))
    album.draw(run, trained, judged, splits.test, usual)
    repeated = {}
    if others and not trained.interrupted:
        before_others = time.perf_counter()
        with contextlib.suppress(KeyboardInterrupt):
            more = judge_on_splits(others, config, cache=cache, report=report)
            repeated["splits"] = _sum_up(run, [splits, *others], [judged, *more])
        seconds["other_splits"] = time.perf_counter() - before_others
    seconds["total"] = time.perf_counter() - started
    data = {**describe_data(dataset, splits), **_check_labels(run, splits, trained)}
    run.write_data_page(render_data_page(described, data))
    metrics = {
        **judged.to_dict(),
        **repeated,
        "data": data,
        **({} if familiar is None else {"familiarity": familiar.to_dict()}),
        "calibration": _describe_calibration(judged, trained.temperature),
        "seconds": seconds,
        "protocol": {
            **_protocol(dataset, splits, trained),
            **({"stopped_splits": len(others) + 1} if others and not repeated else {}),
        },
        "saved_model": compare_saved_model(run, splits.test, config, cache),
    }
    run.write_metrics(metrics)
    return metrics


def _sum_up(
    run: Run, splits: Sequence[Splits], judged: Sequence[ClassificationReport]
) -> dict[str, Any]:
    """Several splits; from folds also one report on all pictures, and what was said of each."""
    summary = summarize_splits(splits, judged)
    if summary["num_folds"]:
        pooled, folds = pool_folds(splits, judged)
        run.write_predictions({**predictions_table(pooled), "fold": folds.tolist()}, folds=True)
        summary["pooled"] = pooled.to_dict()
    return summary


def _describe(
    dataset: ImageDataset, splits: Splits, config: TrainConfig, *, num_splits: int
) -> dict[str, Any]:
    several = {} if splits.fold else {"splits": num_splits}
    return {
        "kind": "transfer",
        "dataset": describe_dataset(dataset),
        "split": {
            **known_pictures.describe_split(splits),
            "fold": splits.fold,
            "asked": {**splits.asked, **several},  # parts alone do not tell it exactly
        },
        "settings": dataclasses.asdict(config),
    }


def settings_of(run: Run) -> TrainConfig:
    """The settings that a run was trained with.

    Raises:
        ValueError: It is no transfer run, or comes from a version with other settings.
    """
    return read_settings(run, "transfer", TrainConfig)


def load_classifier(run: Run) -> keras.Model:
    """The run's model, in Keras' safe mode: it can execute nothing.

    Raises:
        ValueError: The run has none, or it cannot be read.
    """
    return load_model(run, keras.Model, "a classifier")


def unseen_part(run: Run, dataset: ImageDataset) -> tuple[ImageDataset, int]:
    """The pictures of a data set that the run's model was neither trained nor chosen on.

    Returns:
        Them, and the number of pictures left out.

    Raises:
        ValueError: None remain, or the classes are others than the model's.
    """
    expected = run.config["dataset"]["class_names"]
    if list(dataset.class_names) != expected:
        raise ValueError(
            f"{dataset.name} has the classes {list(dataset.class_names)}, but {run.path} was "
            f"trained on {expected}: expected the same folders."
        )
    return known_pictures.unseen_part(run, dataset)


def learned_part(run: Run, dataset: ImageDataset) -> ImageDataset:
    """The pictures of a data set that the run's model was trained or chosen on, in no given parts.

    Raises:
        ValueError: The data set is not the one that the run was made from.
    """
    known = run.config["dataset"]
    if dataset.fingerprint != known["fingerprint"]:
        raise ValueError(
            f"{dataset.name} ({len(dataset)} pictures) is not what {run.path} was trained on: "
            f"expected {known['name']} with {known['num_images']} pictures and the same labels. "
            "Train again if it has changed since."
        )
    seen = set(known_pictures.learned_digests(run))
    # A given test part may hold a copy of what was learned from.
    parts = dataset.parts or ("train",) * len(dataset)
    keep = [
        i
        for i, digest in enumerate(known_pictures.shorten(dataset.digests))
        if digest in seen and parts[i] != "test"
    ]
    return dataclasses.replace(dataset.subset(keep), parts=None)


def deal_learned(run: Run, dataset: ImageDataset) -> DealtSizes:
    """What a run has learned from, dealt into the trainings of its learning curve.

    Args:
        run: A finished run.
        dataset: The data set that it was made from.

    Raises:
        ValueError: Another data set, or too few pictures of a class.
    """
    config, num_all = settings_of(run), len(known_pictures.learned_digests(run))
    num_validation = len(known_pictures.digests_of(run, "validation"))
    tunes = config.unfreeze_from is not None or not config.pretrained
    watches = tunes or config.head == "dense"
    return deal_sizes(
        learned_part(run, known_pictures.with_groups(run, dataset)),
        validation_fraction=num_validation / num_all if watches else 0,
        strategy="grouped" if known_pictures.keeps_groups(run) else "stratified",
        seed=config.seed,
    )


@alone
def add_learning_curve(
    run: Run, dataset: ImageDataset, *, report: Report, cache: FeatureCache | None = None
) -> dict[str, Any]:
    """Measures how accuracy grows with pictures, and writes it into a finished run.

    The run's settings are trained on parts of the pictures that it learned from; its test part is
    not used, but what it showed stands beside what the curve expects for it.

    Args:
        run: A finished run.
        dataset: The data set that it was made from.
        report: Told how far it is.
        cache: Where activations are kept.

    Returns:
        What was added to `metrics.json`, as "learning_curve".

    Raises:
        ValueError: Another data set, or too few pictures of a class.
    """
    started = time.perf_counter()
    config, metrics, dealt = settings_of(run), run.metrics, deal_learned(run, dataset)
    measured = measure_learning_curve(dealt, config, cache=cache, report=report)
    _draw_learning_curve(run, measured, metrics)
    expected = measured.accuracy(measured.num_all, num_test=metrics["num_test"])
    found = {
        "sizes": list(dealt.sizes),
        "accuracies": measured.accuracies.tolist(),
        "num_judged": dealt.num_judged,
        "coverage": COVERAGE,
        "num_all": measured.num_all,
        "expected": expected.to_dict(),
        "seen": metrics["accuracy"]["value"],
        "gains": [
            {"more": more, **measured.gain(more).to_dict()} for more in round_steps(dealt.num_all)
        ],
        "seconds": time.perf_counter() - started,
    }
    run.write_metrics({**metrics, "learning_curve": found})
    return found


def _draw_learning_curve(run: Run, measured: MeasuredCurve, metrics: dict[str, Any]) -> None:
    curve = measured.curve
    sizes = np.geomspace(curve.sizes[0], 2 * measured.num_all, 60)
    ranges = [measured.accuracy(size) for size in sizes]
    album.save(
        run,
        "learning_curve",
        plots.plot_learning_curve(
            curve.sizes,
            measured.accuracies,
            curve=np.array([[r.value, r.low, r.high] for r in ranges]),
            curve_sizes=sizes,
            coverage=COVERAGE,
            seen=(measured.num_all, *(metrics["accuracy"][k] for k in ("value", "low", "high"))),
        ),
    )


def _check_labels(run: Run, splits: Splits, trained: TrainedClassifier) -> dict[str, Any]:
    """Labels to look at again, and a picture of them."""
    if trained.out_of_fold is None:
        return {}
    names = splits.train.class_names
    found: dict[str, Any] = {}
    parts = [splits.train]
    if len(trained.out_of_fold) > len(splits.train):
        parts.append(splits.validation)
    labels = np.concatenate([part.labels for part in parts])
    places = [(part, i) for part in parts for i in range(len(part))]
    suspects = find_suspects(labels, trained.out_of_fold)
    found["doubt"] = DOUBT
    found["suspects"] = [
        {
            "file": places[suspect.index][0].files[places[suspect.index][1]],
            "label": names[suspect.label],
            "prediction": names[suspect.prediction],
            "probability": suspect.probability,
        }
        for suspect in suspects
    ]
    if suspects:
        probabilities = softmax(trained.out_of_fold, axis=1)
        number = min(album.NUM_SHOWN, len(suspects))
        shown = confident_mistakes(labels, probabilities, num_images=number)
        gallery = plots.plot_mistakes(
            {int(i): places[i][0].read(places[i][1]) for i in shown},
            labels,
            probabilities=probabilities,
            class_names=names,
            num_images=number,
        )
        album.save(run, "suspects", gallery)
    return found


def _describe_calibration(judged: ClassificationReport, temperature: float) -> dict[str, float]:
    """Calibration on the test part, with the temperature and without."""
    plain = softmax(np.log(np.maximum(judged.probabilities, 1e-30)) * temperature, axis=1)
    return {
        "temperature": temperature,
        "ece": expected_calibration_error(judged.labels, judged.probabilities),
        "ece_before": expected_calibration_error(judged.labels, plain),
        "brier": brier_score(judged.labels, judged.probabilities),
        "brier_before": brier_score(judged.labels, plain),
    }


def _protocol(dataset: ImageDataset, splits: Splits, trained: TrainedClassifier) -> dict[str, Any]:
    """What a reader needs to know to trust or repeat the numbers."""
    config = trained.config
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "split": splits.strategy,
        "grouped_by": dataset.grouped_by if splits.keeps_groups else "",
        "seed": splits.seed,
        "fold": splits.fold,
        "num_train": len(splits.train),
        "num_validation": len(splits.validation),
        "backbone": config.backbone if config.pretrained else f"{config.backbone}, random start",
        "head": trained.head,
        "cut": trained.cut,
        "views": config.views,
        "image_size": config.image_size,
        "precision": trained.precision,
        "head_strength": trained.inverse_strength,
        "weights": trained.kept,
        "temperature": trained.temperature,
        "test_views": config.test_views,
        "interrupted": trained.interrupted,
        "intervals": "95 %, bootstrap over test images or groups; proportions Wilson",
    }


def predictions_table(
    judged: ClassificationReport,
    familiar: JudgedFamiliarity | None = None,
    groups: np.ndarray | None = None,
) -> dict[str, list[Any]]:
    """One row per test image: file, true and predicted class, probabilities, distance, group."""
    names = judged.class_names
    table: dict[str, list[Any]] = {
        "file": list(judged.files),
        "label": [names[i] for i in judged.labels],
        "prediction": [names[i] for i in judged.probabilities.argmax(1)],
    }
    for column, name in enumerate(names):
        table[f"p({name})"] = judged.probabilities[:, column].round(6).tolist()
    if familiar is not None:
        table[DISTANCE] = familiar.distances.round(6).tolist()
    if groups is not None:
        table[GROUP] = groups.tolist()
    return table


def compare_saved_model(
    run: Run, test: ImageDataset, config: TrainConfig, cache: FeatureCache | None
) -> dict[str, float | int]:
    """How far the saved float32 model's answers are from the ones that were judged.

    They differ by rounding only; where the trunk ran in bfloat16, by bfloat16's.
    """
    few = test.subset(np.arange(min(_PARITY_IMAGES, len(test))))
    model = load_classifier(run)
    saved = predict(model, [few.read(i) for i in range(len(few))])
    judged = predict_probabilities(model, few, config=config, cache=cache)
    return {
        "num_images": len(few),
        "max_difference": float(np.abs(saved - judged).max()),
        "same_class": int((saved.argmax(1) == judged.argmax(1)).sum()),
    }
