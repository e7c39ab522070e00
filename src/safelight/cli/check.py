"""`safelight check`: what is to be known of pictures before anything is trained on them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from safelight.cli import console
from safelight.cli.data import Groups, Strict, Threshold, find_strategy, load_data
from safelight.cli.runs import Json
from safelight.cli.trained import check_output
from safelight.cli.transfer import Data, Split
from safelight.datasets import Splits

_LIKELY = 0.9  # an accuracy to tell widths by


def check(
    data: Data,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A page to write (.md), with names."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the page if it is there.")
    ] = False,
    split: Split = None,
    groups: Groups = None,
    as_json: Json = False,
    strict: Strict = False,
    threshold: Threshold = 0.5,
) -> None:
    """Say what is to be known of pictures before anything is trained on them.

    How many there are of each class, which cannot be read and why, copies and near-copies, the
    same picture in two classes, whether pictures with neighbouring names share labels, so that a
    random split flatters, and how exactly the test part would tell an accuracy. Loads no network.
    """
    from safelight import datasets
    from safelight.files import write_text
    from safelight.transfer import data_page

    check_output(output, ".md")
    if output is not None and output.exists() and not overwrite:
        raise ValueError(f"--output {output}: is there; replace it with --overwrite.")
    dataset = load_data(data, strict=strict, threshold=threshold, groups=groups)
    strategy = find_strategy(split, groups)
    dealt, reason = None, ""
    try:  # as `transfer train` with the same flags does
        dealt = datasets.split(dataset, validation_fraction=0.1, strategy=strategy)
    except ValueError as error:
        reason = str(error)
    described, found = data_page.describe_dataset(dataset), data_page.describe_data(dataset, dealt)
    told = dealt.strategy if dealt else "none"
    if output is not None:
        config = {"dataset": described, "split": {"strategy": told}, "settings": {}}
        write_text(output, data_page.render_data_page(config, found))
    if as_json:
        console.print_json({"dataset": described, "split": told, **found})
    else:
        _tell(described, found, dealt)
        if output is not None:
            console.say(f"{'page':<18}{console.printable(output)}")
    if dealt is None:
        raise ValueError(f"as they are nothing can be trained on them: {reason}")


def _tell(dataset: dict[str, Any], found: dict[str, Any], dealt: Splits | None) -> None:
    parts = {part: sum(numbers.values()) for part, numbers in found["num_per_part"].items()}
    classes = {
        name: sum(numbers[name] for numbers in found["num_per_part"].values())
        for name in dataset["class_names"]
    }
    shown = ", ".join(f"{console.printable(name)} {n:,}" for name, n in classes.items())
    lines = {
        "pictures": f"{dataset['num_images']:,} ({shown})",
        "balance": f"the largest class has {found['imbalance']:.1f} times as many as the smallest",
        "left out": _count(len(dataset["problems"]), "file"),
        "copies": f"{_count(dataset['duplicates'], 'group')} of the same picture, "
        f"{len(dataset['conflicting_duplicates'])} of them in different classes",
        "neighbours": _tell_neighbours(found["neighbours"], dealt),
    }
    if dealt is not None:
        sizes = ", ".join(f"{n:,} {part}" for part, n in parts.items())
        lines["split"] = f"{sizes} ({dealt.strategy})"
        lines["exactness"] = _tell_exactness(len(dealt.test), dataset["num_images"], dealt)
    if found["torn_groups"]:
        lines["groups"] = f"{found['torn_groups']} are in several of your folders, which flatters"
    for name, text in lines.items():
        console.say(f"{name:<18}{text}")


def _tell_neighbours(found: dict[str, Any] | None, dealt: Splits | None) -> str:
    if found is None:
        return "file names give no order that runs across the classes"
    if found["advice"]:
        return console.printable(found["advice"])
    whole = dealt is not None and dealt.strategy == "grouped"
    kept = " (kept together)" if found["is_blocked"] and whole else ""
    agreement, expected = (100 * found[name] for name in ("agreement", "expected"))
    return f"{agreement:.0f} % share a label, {expected:.0f} % by chance{kept}"


def _tell_exactness(num_test: int, num_all: int, dealt: Splits) -> str:
    """How wide the interval of a likely accuracy would be, of pictures that stand alone."""
    likely = f"an accuracy of {100 * _LIKELY:.0f} % would be told"
    about = f"{likely} to within {_width(num_test):.1f} points"
    folds = "" if dealt.strategy.startswith("given") else f"; by --folds 5, {_width(num_all):.1f}"
    wider = ", more where groups are alike" if dealt.keeps_groups else ""
    return f"{about}{folds}{wider}"


def _width(number: int) -> float:
    """Points from the value to the farther end of Wilson's 95 % interval."""
    from safelight.resampling import Resampling, proportion

    right = np.arange(number) < round(_LIKELY * number)
    value, low, high = proportion(right, Resampling(number, None, 1, 0.95, 0))
    return 100 * max(value - low, high - value)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
