"""`safelight runs list|show`: what was trained, and how good it is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import console
from safelight.metrics import format_percent
from safelight.runs import Run, list_runs

app = typer.Typer(help="Folders that trainings leave.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]


@app.command(name="list")
def list_(
    root: Annotated[Path, typer.Argument(help="The folder that holds runs.")] = Path("runs"),
    as_json: Json = False,
) -> None:
    """Lists the runs below a folder, oldest first."""
    summaries = list_runs(root)
    if as_json:
        console.print_json([_as_dict(summary) for summary in summaries])
        return
    rows = []
    for run in summaries:
        accuracy = run.metrics.get("accuracy")
        state = run.problem or ("" if run.finished else "not finished")
        number = format_percent(accuracy) if accuracy else state
        rows.append([str(run.path), run.kind, run.dataset, run.created[:16], number])
    console.table(["run", "kind", "data", "created (UTC)", "accuracy"], rows)


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
def show(run: Annotated[Path, typer.Argument(help="A run folder.")], as_json: Json = False) -> None:
    """Shows one run: numbers with intervals, protocol, time, and where its pictures are."""
    opened = Run.open(run)
    if not opened.finished:
        raise ValueError(f"{run} did not finish: it has no metrics.json; train it again.")
    if as_json:
        console.print_json({"config": opened.config, "metrics": opened.metrics})
        return
    print_results(opened)


def print_results(run: Run) -> None:
    """The numbers, the protocol and the pictures of a finished run."""
    metrics = run.metrics
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        if name in metrics:
            console.say(f"{name.replace('_', ' '):<18}{console.percent(metrics[name])}")
    if "loss" in metrics:
        loss = metrics["loss"]
        console.say(
            f"{'loss':<18}{loss['value']:.3f} [{loss['low']:.3f}, {loss['high']:.3f}] nats per image"
        )
    protocol = metrics.get("protocol", {})
    if protocol:
        console.say(
            f"on {metrics['num_test']} test images of {protocol['dataset']} that training did not see "
            f"({protocol['split']} split, seed {protocol['seed']}; {protocol['intervals']})"
        )
    seconds = {name: value for name, value in metrics.get("seconds", {}).items() if value >= 0.05}
    if seconds:
        console.say("seconds           " + ", ".join(f"{k} {v:.1f}" for k, v in seconds.items()))
    for picture in run.pictures:
        console.say(f"picture           {picture}")
