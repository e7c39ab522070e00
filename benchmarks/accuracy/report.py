"""Tables of accuracy on many splits, and of pictures of something else."""

from __future__ import annotations

from measuring import machine_name
from tables import table, versions_line

COLUMNS = (
    "method",
    "accuracy, %",
    "ROC AUC",
    "balanced, %",
    "log-loss",
    "calibration error, %",
    "s a split",
)


def show(interval: dict[str, float], *, scale: float = 100, digits: int = 1) -> str:
    """A value with its interval."""
    value, low, high = (scale * interval[end] for end in ("value", "low", "high"))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def render_accuracy(result: dict) -> list[str]:
    """Per question a table of methods."""
    lines = []
    for question, of in result["questions"].items():
        rows = []
        for method, found in of["methods"].items():
            mean, gap = found["mean"], found["minus_reference"]
            rows.append(
                [
                    result["titles"][method],
                    show(mean["accuracy"]),
                    "" if method == of["reference"] else show(gap["accuracy"]),
                    show(mean["roc_auc"], scale=1, digits=3),
                    show(mean["balanced_accuracy"]),
                    f"{mean['loss']['value']:.3f}",
                    f"{100 * mean['ece']['value']:.1f}",
                    f"{found['seconds']:.0f}",
                ]
            )
        lines += [
            f"ELPV, {question}: means over {of['num_splits']} random 75/25 splits, with corrected "
            f"95 % intervals (Nadeau and Bengio 2003); {machine_name(result['machine'])}.",
            "",
            *table((*COLUMNS[:2], f"minus {of['reference']}, points", *COLUMNS[2:]), rows),
            "",
        ]
    return [*lines, f"Measured with {versions_line([result])}.", ""]


def render_unfamiliar(result: dict) -> list[str]:
    """Per question how well foreign pictures are told from familiar ones."""
    rows = [
        [
            question,
            show(of["auroc"], scale=1, digits=3),
            show(of["familiar_refused"]),
            show(of["foreign_refused"]),
        ]
        for question, of in result["means"].items()
    ]
    return [
        "Pictures of something else, told from those of the test part by familiarity: means over "
        f"{result['num_splits']} random splits; {machine_name(result['machine'])}.",
        "",
        *table(
            ("foreign", "AUROC", f"familiar refused at {100 * result['rate']:.0f} %, %",
             "foreign refused, %"),
            rows,
        ),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]  # fmt: skip


def render_anomalies(result: dict) -> list[str]:
    """How well each score tells defective cells from functional ones."""
    rows = [
        [
            title,
            show(result["auroc"][name], scale=1, digits=3),
            "" if name == "vgg16" else show(result["minus_vgg16"][name], scale=1, digits=3),
        ]
        for name, title in result["titles"].items()
    ]
    return [
        "Defective solar cells, told from functional ones by what has seen "
        f"{result['num_learned']} functional ones alone; {result['num_anomalous']} against "
        f"{result['num_normal']} cells, "
        f"means over {result['num_splits']} random splits with corrected 95 % intervals; "
        f"autoencoder at {result['image_size']} px, {result['epochs']} epochs; "
        f"{machine_name(result['machine'])}.",
        "",
        *table(("score", "AUROC", "minus VGG16's"), rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def render_grid(result: dict) -> list[str]:
    """A whole grid of trainings with the cache and without."""
    seconds, rates = result["seconds"], result["rates"]
    cached = seconds["fill"] + seconds["trainings"]
    rows = [
        ["Safelight, cache empty at the start", cached, rates["auto"]],
        ["Safelight, cache full", seconds["trainings"], rates["auto"]],
        ["the same without a cache", seconds["uncached"], rates["auto"]],
        ["without a cache, Keras on TensorFlow", seconds["uncached_keras"], rates["keras"]],
    ]
    shown = [
        [name, f"{time / 60:,.0f}", f"{time / cached:.1f}", f"{rate:.1f}"]
        for name, time, rate in rows
    ]
    sizes = ", ".join(f"{size:,}" for size in result["sizes"])
    return [
        f"A grid of {result['num_trainings']} trainings on ELPV ({result['num_splits']} splits, "
        f"{sizes} pictures to learn from, {result['num_seeds']} seeds), defaults; "
        f"{machine_name(result['machine'])}. Without a cache is not run: "
        f"{result['num_passes']:,} passes through the frozen network at the rate of a part.",
        "",
        *table(("grid", "minutes", "times the first", "frozen network, images/s"), shown),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]
