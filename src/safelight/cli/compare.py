"""`safelight compare`: what runs draw, scored by one protocol for all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import console
from safelight.cli.data import Strict, load_pictures, open_trained
from safelight.cli.runs import Json, say_distance
from safelight.cli.trained import Seed, check_output, find_source, save_picture


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders that `vae train` or `gan train` made."),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="What they were trained on; by default where the first says."
        ),
    ] = None,
    num: Annotated[
        int, typer.Option(min=20, help="Pictures of either side, at most; 10,000 are the limit.")
    ] = 10_000,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw what each makes, and below each picture the learned one nearest to it.",
        ),
    ] = None,
    as_json: Json = False,
    strict: Strict = False,
) -> None:
    """Score what runs draw, whatever they are: one set of unseen pictures, one set of features.

    The first line are real pictures of the training part, as if they had been generated: nobody
    can be expected to do better. Frechet distances have their bias taken off, all of it where there
    are many more pictures than features; `as counted` is what these give as they are.
    """
    check_output(output, ".png")
    opened = [open_trained(run) for run in runs]
    dataset = load_pictures(data or find_source(opened[0]), strict=strict)
    console.start_keras()
    from safelight import plots, scoring

    with console.progress() as report:
        rows, protocol = scoring.compare(opened, dataset, num=num, seed=seed, report=report)
    if as_json:
        console.print_json({"rows": [row.to_dict() for row in rows], "protocol": protocol})
    else:
        _print(rows, protocol)
    if output is not None:
        named = [
            pair
            for row in rows
            for pair in ((row.name, row.samples), ("learned, nearest", row.nearest))
        ]
        save_picture(plots.plot_generators(named), output, quiet=as_json)


def _print(rows: list[Any], protocol: dict[str, Any]) -> None:
    columns = (
        "run", "Frechet distance", "as counted", "kernel distance", "precision", "recall",
        "density", "coverage", "copies", "log p(x)", "training",
    )  # fmt: skip
    console.table(columns, [_cells(row) for row in rows], right=columns[2:])
    for row in rows[1:]:
        console.say(f"{row.name:<18}{console.printable(row.words)}")
    console.say(f"{'judged by':<18}{console.printable(protocol['features'])}")
    console.say(f"{'against':<18}{protocol['num_real']:,} pictures of {protocol['real']}")
    console.say(f"{'intervals':<18}{protocol['intervals']}")
    if beware := rows[0].score.beware:
        console.say(f"{'beware':<18}{console.printable(beware)}")


def _cells(row: Any) -> list[str]:
    score = row.score
    shares = (score.precision, score.recall)
    likelihood = (row.likelihood or {}).get("value")
    return [
        console.printable(row.name),
        say_distance(score.frechet.to_dict()),
        f"{score.frechet_plain:.2f}",
        say_distance(score.kernel.to_dict()),
        *(f"{100 * each.value:.1f} %" for each in shares),
        f"{score.density:.2f}",
        f"{100 * score.coverage.value:.1f} %",
        "" if score.copies is None else f"{100 * score.copies.value:.1f} %",
        "" if likelihood is None else f"{likelihood:.1f} nats",
        "" if row.seconds is None else f"{row.seconds / 60:.1f} min",
    ]
