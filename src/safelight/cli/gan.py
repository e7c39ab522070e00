"""`safelight gan train|evaluate|sample|interpolate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import console, flags
from safelight.cli.data import NewRun, Overwrite, Strict, damage, load_pictures
from safelight.cli.runs import Json, print_results, print_score
from safelight.cli.trained import (
    Data,
    Seed,
    TestFraction,
    check_output,
    check_pictures_output,
    class_names_of,
    find_source,
    load_parts,
    name_source,
    number_of,
    open_kind,
    save_picture,
)
from safelight.gan.config import TrainConfig
from safelight.runs import Run

app = typer.Typer(
    help="Generative adversarial networks: pictures from nothing, judged by one score.",
    no_args_is_help=True,
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `gan train` made.")]
Label = Annotated[
    str | None, typer.Option(metavar="CLASS", help="The class, of a conditional model.")
]


@app.command(short_help="Train a GAN or a VAE/GAN; leaves a run folder.")
@flags.with_config_flags(flags.GAN)
def train(
    data: Data,
    output: NewRun,
    settings: TrainConfig,
    test_fraction: TestFraction = 0.25,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Train a generator against a discriminator and leave a run folder: model, numbers, pictures.

    What is drawn is watched: a collapse is said, with what to do about it. Ctrl-C keeps what was
    learnt so far, finishes the run and exits with 130. A training that was killed goes on if the
    same command is given again.
    """
    Run.check(output, overwrite=overwrite, resume=True)
    dataset = load_pictures(data, strict=strict)
    parts = load_parts(dataset, settings, test_fraction=test_fraction)
    console.start_keras()
    from safelight import scoring
    from safelight.gan import experiment

    experiment.check(settings, parts)
    run = experiment.open_run(
        output, parts, settings, source=name_source(data, output), overwrite=overwrite
    )
    with console.progress() as report:
        report("preparing", 0, 1, "a judge of pictures")
        features = scoring.choose_features(
            parts.images["train"],
            parts.labels["train"] if parts.labels else None,
            drawn=dataset.name == "mnist",
        )
        report("preparing", 1, 1, "")
        metrics = experiment.run_training(run, parts, settings, features=features, report=report)
    print_results(run)
    console.say(f"{'run':<18}{console.printable(run.path)}")
    if metrics["protocol"]["interrupted"]:
        raise typer.Exit(130)


@app.command(short_help="Judge what a run draws: distances, precision and recall, copies.")
def evaluate(
    run: RunFolder,
    num: Annotated[
        int, typer.Option(min=20, help="Pictures of either side, at most; 10,000 are the limit.")
    ] = 10_000,
    seed: Seed = 0,
    as_json: Json = False,
    strict: Strict = False,
) -> None:
    """Judge what a run draws against its test part, by features that stand in the protocol."""
    opened = open_kind(run, "gan")
    dataset = load_pictures(find_source(opened), strict=strict)
    console.start_keras()
    from safelight import scoring

    with damage(run), console.progress() as report:
        rows, protocol = scoring.compare([opened], dataset, num=num, seed=seed, report=report)
    score = rows[1].score.to_dict()
    if as_json:
        console.print_json({"score": score, "protocol": protocol})
        return
    print_score(score)
    console.say(f"{'judged by':<18}{console.printable(protocol['features'])}")


@app.command(short_help="Draw new pictures.")
def sample(
    run: RunFolder,
    num: Annotated[
        int,
        typer.Option(
            min=1,
            help="How many; of a conditional model without --label, as many of every class.",
        ),
    ] = 64,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="FILE.png for all of them side by side, or a folder for a file each. By default "
            "a file among the run's pictures.",
        ),
    ] = None,
    seed: Seed = 0,
    temperature: Annotated[
        float, typer.Option(min=0, help="Below 1 pictures are more typical and less varied.")
    ] = 1.0,
    label: Label = None,
) -> None:
    """Draw new pictures: what the generator makes of draws from N(0, I)."""
    if not math.isfinite(temperature):
        raise ValueError(f"--temperature {temperature}: expected a number of 0 or more.")
    if output is not None:
        check_pictures_output(output)
    opened = open_kind(run, "gan")
    label_number = number_of(opened, label)
    console.start_keras()
    import numpy as np

    from safelight.gan import album, experiment
    from safelight.generative import pictures

    model = experiment.load_gan(opened)
    labels = None if label_number is None else np.full(num, label_number)
    path = output or opened.picture_path(f"samples-seed{seed}")
    options: dict[str, Any] = {"labels": labels, "seed": seed, "temperature": temperature}
    if path.suffix.lower() == ".png":
        names = class_names_of(opened)
        save_picture(album.draw_samples(model, num, class_names=names, **options), path)
        return
    pictures.save_images(path, model.generate(num, **options), name="sample")
    console.say(f"{num} pictures in {console.printable(path)}")


@app.command(short_help="Walk from one draw to another.")
def interpolate(
    run: RunFolder,
    num: Annotated[int, typer.Option(min=1, help="Ways, each between two draws.")] = 6,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="By default among the run's pictures.")
    ] = None,
    seed: Seed = 0,
    label: Label = None,
) -> None:
    """Walk through the latent space between draws, along arcs, and draw what is on the way."""
    check_output(output, ".png")
    opened = open_kind(run, "gan")
    label_number = number_of(opened, label)
    console.start_keras()
    from safelight.gan import album, experiment

    model = experiment.load_gan(opened)
    figure = album.draw_walks(model, num, label=label_number, seed=seed)
    save_picture(figure, output or opened.picture_path("interpolated"))
