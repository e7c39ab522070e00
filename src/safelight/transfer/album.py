"""The pictures of a run: how good it is, what it mistakes, and where its answers come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from safelight import plots
from safelight.datasets import ImageDataset
from safelight.metrics import confident_mistakes
from safelight.runs import Run
from safelight.transfer.evaluation import ClassificationReport
from safelight.transfer.explanations import Explainer
from safelight.transfer.references import References
from safelight.transfer.training import TrainedClassifier

NUM_SHOWN = 12


def draw(
    run: Run,
    trained: TrainedClassifier,
    judged: ClassificationReport,
    test: ImageDataset,
    usual: References,
) -> None:
    """Draws the pictures of a run into its folder.

    Args:
        run: The run.
        trained: The model and what changed over its epochs.
        judged: The model's numbers.
        test: The pictures they are for.
        usual: What its layers do for training pictures.
    """
    if trained.history:
        save(run, "history", plots.plot_history(trained.history))
    matrix = plots.plot_confusion_matrix(judged.confusion_matrix, judged.class_names)
    save(run, "confusion_matrix", matrix)
    fractions = {name: value for name, value in judged.metrics.items() if name != "loss"}
    save(run, "metrics", plots.plot_intervals(fractions))
    save(run, "reliability", plots.plot_reliability(judged.labels, judged.probabilities))
    explainer = Explainer(trained.model, references=usual)
    mistakes = confident_mistakes(judged.labels, judged.probabilities, num_images=NUM_SHOWN)
    if len(mistakes):
        gallery = plots.plot_mistakes(
            {int(i): test.read(int(i)) for i in mistakes},
            judged.labels,
            probabilities=judged.probabilities,
            class_names=judged.class_names,
        )
        save(run, "mistakes", gallery)
        _explain(run, "explanations", explainer, judged, test, mistakes)
    right = surest_right(judged.labels, judged.probabilities)
    if len(right):
        _explain(run, "reasons", explainer, judged, test, right)


def surest_right(
    labels: np.ndarray, probabilities: np.ndarray, num_images: int = NUM_SHOWN
) -> np.ndarray:
    """Rows that are answered right, each class's surest first, the classes in turn.

    Args:
        labels: `(n,)` integers.
        probabilities: `(n, num_classes)`.
        num_images: How many at most.

    Returns:
        `(m,)` rows, sorted by class; as many of each as there are and as fit.
    """
    said, sure = probabilities.argmax(1), probabilities.max(1)
    order = np.argsort(-sure, kind="stable")
    order = order[(said == labels)[order]]
    ranks = np.empty(len(order), int)  # of each among those of its class: 0 for the surest
    for each in np.unique(said[order]):
        ranks[said[order] == each] = np.arange(np.sum(said[order] == each))
    chosen = order[np.argsort(ranks, kind="stable")][:num_images]
    return chosen[np.argsort(said[chosen], kind="stable")]


def _explain(
    run: Run,
    name: str,
    explainer: Explainer,
    judged: ClassificationReport,
    test: ImageDataset,
    chosen: np.ndarray,
) -> None:
    """Draws some test pictures, each with the map of what speaks for the answer."""
    pictures = [test.read(int(i)) for i in chosen]
    said, sure = judged.probabilities[chosen].argmax(1), judged.probabilities[chosen].max(1)
    found = explainer.explain(pictures, said)
    names = [str(name) for name in judged.class_names]
    titles = [
        f"true: {names[int(judged.labels[i])]}\nsays: {names[int(answer)]}, {each:.0%} sure"
        for i, answer, each in zip(chosen, said, sure, strict=True)
    ]
    figure = plots.plot_explanations(pictures, found.maps, titles=titles)
    # Two dozen photographs in colour: at the other pictures' sharpness two megabytes.
    plots.save_figure(figure, run.picture_path(name), dpi=100)


def save(run: Run, name: str, figure: Any) -> None:
    """Writes a figure among the run's pictures."""
    plots.save_figure(figure, run.picture_path(name))
