"""`safelight runs list|show`: what was trained, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import console
from safelight.metrics import format_percent
from safelight.runs import Run, RunSummary, list_runs
from safelight.untrusted import one_line

app = typer.Typer(help="See what was trained, and how good it is.", no_args_is_help=True)
_IN_NATS = {
    "loss": ("loss", 3),
    "elbo": ("ELBO", 1),
    "reconstruction": ("  reconstruction", 1),
    "kl": ("  less KL", 1),
    "log_likelihood": ("log p(x)", 1),
}
DISTANCES = (("frechet", "Frechet"), ("kernel", "kernel"))
_FEATURES = {"latent": "labels: latents", "pca": "labels: PCA"}
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


@app.command(name="list")
def list_(
    root: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Runs are sought in it and below it.")
    ] = Path("runs"),
    as_json: Json = False,
) -> None:
    """List the runs below a folder, oldest first."""
    summaries = list_runs(root)
    if as_json:
        console.print_json([_as_dict(summary) for summary in summaries])
        return
    if not summaries:
        console.remark(f"no runs in {console.printable(root)} yet")
        return
    names = ["run", "kind", "data", "created (UTC)", "accuracy or ELBO"]
    console.table(names, [_row(summary) for summary in summaries])


def _row(run: RunSummary) -> list[str]:
    state = "damaged" if run.problem else "" if run.finished else "not finished"
    created = run.created[:16].replace("T", " ")
    result = _result(run) or state
    return [console.printable(x) for x in (run.path, run.kind, run.dataset, created, result)]


def _result(run: RunSummary) -> str:
    """The one number that a run of its kind is known by."""
    if "accuracy" in run.metrics:
        return format_percent(run.metrics["accuracy"])
    bound = run.metrics.get("elbo")
    return f"{bound.value:.1f} [{bound.low:.1f}, {bound.high:.1f}] nats" if bound else ""


def _as_dict(summary: Any) -> dict[str, Any]:
    return {
        "path": str(summary.path),
        "kind": summary.kind,
        "created": summary.created,
        "dataset": summary.dataset,
        "finished": summary.finished,
        "metrics": {name: interval.to_dict() for name, interval in summary.metrics.items()},
        "problem": summary.problem,
    }


@app.command()
def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    as_json: Json = False,
) -> None:
    """Show one run: numbers with intervals, protocol, time, and where its pictures are."""
    opened = Run.open(run)
    if not opened.finished:
        raise ValueError(f"{run} did not finish: it has no metrics.json; train it again.")
    if as_json:
        console.print_json({"config": opened.config, "metrics": opened.metrics})
        return
    print_results(opened)


def print_results(run: Run) -> None:
    """The numbers, the protocol and the pictures of a finished run.

    Raises:
        ValueError: Its metrics.json holds something else.
    """
    metrics = run.metrics
    try:
        _print_results(run, metrics)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError, ArithmeticError) as error:
        raise ValueError(f"{run.path / 'metrics.json'}: damaged ({error}).") from error


def print_numbers(metrics: dict[str, Any]) -> None:
    """A line per metric, each with its interval."""
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        if name in metrics:
            console.say(f"{name.replace('_', ' '):<18}{console.percent(metrics[name])}")
    for name, (word, digits) in _IN_NATS.items():
        number = metrics.get(name)
        if number and number["value"] is not None:
            value, low, high = (_rounded(number[end], digits) for end in ("value", "low", "high"))
            console.say(f"{word:<18}{value} [{low}, {high}] nats per image")
    if metrics.get("surgery"):
        console.say(f"{'ELBO surgery':<18}{console.printable(metrics['surgery']['sentence'])}")
    if "active_units" in metrics:
        console.say(f"{'active units':<18}{metrics['active_units']} of {metrics['latent_dim']}")
    error = metrics.get("reconstruction_error")
    if error:
        value, low, high = (_rounded(error[end], 4) for end in ("value", "low", "high"))
        console.say(f"{'pixel error':<18}{value} [{low}, {high}] (grey values from 0 to 1)")
    for features, probes in (metrics.get("probes") or {}).items():
        if features in _FEATURES:
            linear, neighbors = (console.percent(probes[way]) for way in ("linear", "neighbors"))
            console.say(f"{_FEATURES[features]:<18}linear {linear}, neighbours {neighbors}")


def say_distance(found: dict[str, float]) -> str:
    """A distance with its interval."""
    ends = [found[end] for end in ("value", "low", "high")]
    # Those by VGG16's features are a hundred times as small as those by a classifier of digits.
    small = all(end is None or abs(end) < 1 for end in ends)
    value, low, high = (_rounded(end, 4 if small else 2) for end in ends)
    return f"{value} [{low}, {high}]"


def print_score(found: dict[str, Any] | None) -> None:
    """What drawn pictures are worth."""
    if not found:
        return
    for name, word in DISTANCES:
        as_counted = f", {found['frechet_plain']:.2f} as counted" if name == "frechet" else ""
        console.say(f"{f'{word} distance':<18}{say_distance(found[name])}{as_counted}")
    for name in ("precision", "recall", "coverage", "copies"):
        console.say(f"{name:<18}{console.percent(found[name])}")
    console.say(f"{'density':<18}{found['density']:.2f}")
    console.say(
        f"{'pictures':<18}{found['num_fake']:,} generated, against {found['num_real']:,} unseen"
    )
    if found.get("beware"):  # runs of older versions lack it
        console.say(f"{'beware':<18}{console.printable(found['beware'])}")


def _print_watch(metrics: dict[str, Any]) -> None:
    """What a game's watch saw in the end."""
    if "diversity" not in metrics:
        return
    words = f"{metrics['diversity']:.2f} times that of real pictures"
    if metrics.get("classes_seen") is not None:
        words += (
            f"; {metrics['classes_seen']} of {metrics['num_classes']} classes drawn, entropy "
            f"{metrics['class_entropy']:.3f} of 1"
        )
    console.say(f"{'diversity':<18}{words}")
    if metrics.get("advice"):
        console.say(f"{'beware':<18}{console.printable(metrics['advice'])}")


def _print_calibration(found: dict[str, float] | None) -> None:
    if found:
        ece, before = (f"{100 * found[name]:.1f} %" for name in ("ece", "ece_before"))
        brier = f"{found['brier']:.3f}"
        # A kernel head has its scale from held-out answers already: there is no other "before".
        moved = f" (before {before})" if abs(found["temperature"] - 1) > 0.005 else ""
        console.say(f"{'calibration error':<18}{ece}{moved}, Brier score {brier}")


def _print_familiarity(found: dict[str, Any] | None) -> None:
    if not found:
        return
    shares = ", ".join(
        f"{100 * share['value']:.1f} % with --refuse {rate}"
        for rate, share in found["refused"].items()
    )
    console.say(f"{'none of these':<18}{shares}: what `predict` would say of the test part")


def _print_data(found: dict[str, Any] | None) -> None:
    """What is to be looked at in the training pictures."""
    suspects = (found or {}).get("suspects")
    if suspects:
        worst = ", ".join(console.printable(each["file"]) for each in suspects[:3])
        more = ", ..." if len(suspects) > 3 else ""
        console.say(f"{'labels to check':<18}{len(suspects)}: {worst}{more}")


def _print_backend(run: Run) -> None:
    """What Keras ran on."""
    try:
        found = run.environment
    except ValueError:
        return  # what a run says of its numbers does not depend on it
    words = [str(found[name]) for name in ("backend", "accelerator") if found.get(name)]
    if words:
        console.say(f"{'backend':<18}{one_line(', on '.join(words))}")


def _print_splits(found: dict[str, Any] | None) -> None:
    """The means over several splits or folds, and all pictures of the folds together."""
    if not found:
        return
    label = f"{found['num_splits']} {'folds' if found.get('num_folds') else 'splits'}"
    for name in ("accuracy", "balanced_accuracy", "roc_auc"):
        if name in found["mean"]:
            words = f"{name.replace('_', ' ')} {console.percent(found['mean'][name])}"
            console.say(f"{label:<18}{words}")
    pooled = found.get("pooled")
    if pooled:
        words = f"on all {pooled['num_test']:,} pictures, each judged once"
        console.say(f"{label:<18}pooled accuracy {console.percent(pooled['accuracy'])} {words}")


def print_learning_curve(found: dict[str, Any] | None) -> None:
    """What more pictures would give, and whether what was expected has been seen."""
    if not found:
        return
    for gain in found["gains"]:
        value, low, high = (f"{100 * gain[end]:.1f}" for end in ("value", "low", "high"))
        label = f"{gain['more']:,} more"
        console.say(f"{label:<18}about +{value} points of accuracy, between {low} and {high}")
    value, low, high = (f"{100 * found['expected'][end]:.1f}" for end in ("value", "low", "high"))
    number, seen = f"{found['num_all']:,}", f"{100 * found['seen']:.1f} %"
    console.say(
        f"{'check':<18}for the test part {value} % [{low}, {high}] was expected from {number} "
        f"pictures, and {seen} was seen"
    )
    console.say(
        f"{'how':<18}{len(found['accuracies'])} trainings each on "
        f"{', '.join(f'{size:,}' for size in found['sizes'])} pictures; ranges are "
        f"{100 * found['coverage']:.0f} %"
    )


def print_sweep(found: dict[str, Any] | None) -> None:
    """Accuracy, loss and time of each cut, and which one is worth its time."""
    if not found:
        return
    right = ["loss", "train, s", "extract, s"]
    rows = [
        [
            console.printable(cut["name"]),
            _points(cut["accuracy"]),
            _points(cut["minus_head_alone"], sign="+"),
            f"{cut['loss']['value']:.3f}",
            f"{cut['training_seconds']:.1f}",
            f"{cut['extraction_seconds']:.1f}",
        ]
        for cut in found["cuts"]
    ]
    # Five numbers of a cut fit beside each other on 80 columns, the sixth gets a line of its own.
    console.table(["cut", "accuracy, %", "minus head", *right], rows, right=right)
    weights = ", ".join(
        f"{console.printable(cut['name'])} {cut['num_trained']:,}" for cut in found["cuts"]
    )
    console.say(f"{'weights trained':<18}{weights}")
    console.say(f"{'recommended':<18}{console.printable(found['reading'])}")
    console.say(
        f"{'judged on':<18}{found['num_judged']} pictures in each of {found['num_splits']} "
        f"{found['strategy']} splits; the {found['num_untouched']} of the test part were not used"
    )
    console.say(f"{'intervals':<18}95 %, {found['method']}")


def print_rate_distortion(found: list[dict[str, Any]] | None) -> None:
    """Rate, distortion and ELBO of the model of each beta."""
    if not found:
        return
    right = ["rate", "distortion", "ELBO", "mutual inf.", "active"]
    rows = [
        [
            f"{point['beta']:g}",
            *(f"{point[name]['value']:.1f}" for name in ("rate", "distortion", "elbo")),
            _rounded(point["mutual_information"], 1),
            str(point["active_units"]),
        ]
        for point in found
    ]
    console.table(["beta", *right], rows, right=["beta", *right])


def _points(metric: dict[str, Any] | None, *, sign: str = "") -> str:
    if metric is None:
        return ""
    value, low, high = (100 * metric[end] for end in ("value", "low", "high"))
    return f"{value:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def _rounded(number: float | None, digits: int) -> str:
    return "?" if number is None else f"{number:.{digits}f}"


def _print_results(run: Run, metrics: dict[str, Any]) -> None:
    print_numbers(metrics)
    print_score(metrics.get("score"))
    _print_watch(metrics)
    _print_calibration(metrics.get("calibration"))
    _print_familiarity(metrics.get("familiarity"))
    _print_splits(metrics.get("splits"))
    print_learning_curve(metrics.get("learning_curve"))
    print_sweep(metrics.get("sweep"))
    print_rate_distortion(metrics.get("rate_distortion"))
    _print_data(metrics.get("data"))
    protocol = metrics.get("protocol", {})
    if protocol.get("features"):
        console.say(f"{'judged by':<18}{console.printable(protocol['features'])}")
    if protocol.get("log_likelihood"):
        console.say(f"{'how':<18}{console.printable(protocol['log_likelihood'])}")
    if protocol:
        name = console.printable(protocol["dataset"])
        number = metrics["num_test"] if "num_test" in metrics else metrics["num_images"]
        console.say(f"{'judged on':<18}{number} pictures of {name}, kept from training")
        which = ""
        if protocol.get("fold"):
            fold, num_folds = protocol["fold"]
            which = f", fold {fold + 1} of {num_folds}"
        console.say(f"{'split':<18}{protocol['split']}, seed {protocol['seed']}{which}")
        console.say(f"{'intervals':<18}{protocol['intervals']}")
    if protocol.get("interrupted"):
        console.say(f"{'interrupted':<18}training ended early, best weights until then kept")
    if number := protocol.get("stopped_splits"):
        word = "folds" if protocol.get("fold") else "splits"
        console.say(f"{'interrupted':<18}judged on the first of {number} {word} alone")
    seconds = {name: value for name, value in metrics.get("seconds", {}).items() if value >= 0.05}
    if seconds:
        stages = ", ".join(f"{name.replace('_', '-')} {s:.1f}" for name, s in seconds.items())
        console.say(f"{'seconds':<18}{stages}")
    _print_backend(run)
    for picture in run.pictures:
        console.say(f"{'picture':<18}{console.printable(picture)}")
    if (run.path / "data.md").is_file():
        console.say(f"{'about the data':<18}{console.printable(run.path / 'data.md')}")
    advice = ((metrics.get("data") or {}).get("neighbours") or {}).get("advice")
    if advice:
        console.say(f"{'beware':<18}{console.printable(advice)}")
