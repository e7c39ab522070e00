"""`safelight runs list|show`: what was trained, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import console
from safelight.metrics import format_percent
from safelight.runs import Run, RunSummary, list_runs

app = typer.Typer(help="See what was trained, and how good it is.", no_args_is_help=True)
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
    names = ["run", "kind", "data", "created (UTC)", "accuracy"]
    console.table(names, [_row(summary) for summary in summaries])


def _row(run: RunSummary) -> list[str]:
    accuracy = run.metrics.get("accuracy")
    state = "damaged" if run.problem else "" if run.finished else "not finished"
    created = run.created[:16].replace("T", " ")
    number = format_percent(accuracy) if accuracy else state
    return [console.printable(x) for x in (run.path, run.kind, run.dataset, created, number)]


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
    try:
        _print_results(run)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run.path / 'metrics.json'}: damaged ({error}).") from error


def print_numbers(metrics: dict[str, Any]) -> None:
    """A line per metric, each with its interval."""
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        if name in metrics:
            console.say(f"{name.replace('_', ' '):<18}{console.percent(metrics[name])}")
    loss = metrics.get("loss")
    if loss and loss["value"] is not None:
        low, high = ("?" if loss[end] is None else f"{loss[end]:.3f}" for end in ("low", "high"))
        console.say(f"{'loss':<18}{loss['value']:.3f} [{low}, {high}] nats per image")


def _print_results(run: Run) -> None:
    metrics = run.metrics
    print_numbers(metrics)
    protocol = metrics.get("protocol", {})
    if protocol:
        name = console.printable(protocol["dataset"])
        console.say(
            f"{'judged on':<18}{metrics['num_test']} pictures of {name}, kept from training"
        )
        console.say(f"{'split':<18}{protocol['split']}, seed {protocol['seed']}")
        console.say(f"{'intervals':<18}{protocol['intervals']}")
    if protocol.get("interrupted"):
        console.say(f"{'interrupted':<18}fine-tuning ended by Ctrl-C, best weights until then kept")
    seconds = {name: value for name, value in metrics.get("seconds", {}).items() if value >= 0.05}
    if seconds:
        stages = ", ".join(f"{name.replace('_', '-')} {s:.1f}" for name, s in seconds.items())
        console.say(f"{'seconds':<18}{stages}")
    for picture in run.pictures:
        console.say(f"{'picture':<18}{console.printable(picture)}")
