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
                    "" if method == result["reference"] else show(gap["accuracy"]),
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
            *table((*COLUMNS[:2], f"minus {result['reference']}, points", *COLUMNS[2:]), rows),
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
