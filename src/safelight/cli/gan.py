"""`safelight gan train|evaluate|sample|reconstruct|interpolate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from safelight.cli import console, flags
from safelight.cli.data import Images, NewRun, Overwrite, Strict, load_pictures
from safelight.cli.runs import DISTANCES, Json, print_results, print_score, say_distance
from safelight.cli.trained import (
    Data,
    DrawnOutput,
    NumDrawn,
    ReconstructedOutput,
    Seed,
    Temperature,
    TestFraction,
    answers_for,
    as_file_name,
    can_encode,
    check_output,
    check_pictures_output,
    class_names_of,
    find_source,
    load_parts,
    name_drawn,
    name_source,
    number_of,
    open_kind,
    read_ends,
    read_sized,
    save_drawn,
    save_picture,
    show_reconstructions,
    start_training,
)
from safelight.gan.config import TrainConfig, check_data
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
    parts = load_parts(dataset, settings, test_fraction=test_fraction, check=check_data)
    start_training(output, settings.architecture, overwrite=overwrite)
    from safelight import scoring
    from safelight.gan import experiment

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
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="What it was trained on; by default where the run says."),
    ] = None,
    num: Annotated[
        int, typer.Option(min=20, help="Pictures of either side, at most; 10,000 are the limit.")
    ] = 10_000,
    seed: Seed = 0,
    as_json: Json = False,
    strict: Strict = False,
) -> None:
    """Judge what a run draws against its test part, by features that stand in the protocol.

    Pictures that were learned from are judged too, as if they had been drawn: nobody can be
    expected to do better.
    """
    opened = open_kind(run, "gan")
    dataset = load_pictures(data or find_source(opened), strict=strict)
    console.start_keras()
    from safelight import scoring

    with console.progress() as report:
        rows, protocol = scoring.compare([opened], dataset, num=num, seed=seed, report=report)
    real, score = (row.score.to_dict() for row in rows)
    if as_json:
        console.print_json({"score": score, "real_pictures": real, "protocol": protocol})
        return
    print_score(score)
    distances = (f"{word} {say_distance(real[name])}" for name, word in DISTANCES)
    console.say(f"{'real pictures':<18}{', '.join(distances)}")
    console.say(f"{'judged by':<18}{console.printable(protocol['features'])}")


@app.command(short_help="Draw new pictures.")
def sample(
    run: RunFolder,
    num: NumDrawn = 64,
    output: DrawnOutput = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
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

    model = experiment.load_gan(opened)
    labels = None if label_number is None else np.full(num, label_number)
    path = output or opened.picture_path(name_drawn(seed, label, temperature))
    options: dict[str, Any] = {"labels": labels, "seed": seed, "temperature": temperature}
    names = class_names_of(opened)
    save_drawn(
        path,
        lambda: album.draw_samples(model, num, class_names=names, **options),
        lambda: model.generate(num, **options),
    )


@app.command(short_help="Encode pictures and decode them again, by a VAE/GAN.")
def reconstruct(
    run: RunFolder,
    images: Images,
    output: ReconstructedOutput = None,
    as_json: Json = False,
) -> None:
    """Encode pictures and decode them again: a line for each with its error.

    A file that cannot be read is one line on standard error, and the others are answered. Exits
    with 0 if all were answered, with 1 if some were, with 2 if none.
    """
    check_output(output, ".png")
    opened = _open_encoding(run, "reconstruct")
    console.start_keras()
    from safelight.gan import experiment

    model = experiment.load_gan(opened)
    answers = answers_for(images)
    with console.progress() as report:
        originals = read_sized(model, answers, report)
    path = output or opened.picture_path("reconstructed")
    show_reconstructions(
        answers, originals, lambda: (model.reconstruct(originals), {}), path, as_json=as_json
    )


@app.command(short_help="Walk from one draw to another; a VAE/GAN also from picture to picture.")
def interpolate(
    run: RunFolder,
    ends: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[IMAGE IMAGE]",
            help="Two pictures to walk between, by a VAE/GAN; without them between draws.",
            show_default=False,
        ),
    ] = None,
    num: Annotated[
        int, typer.Option(min=1, help="Ways, each between two draws; of pictures there is one.")
    ] = 6,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="By default among the run's pictures.")
    ] = None,
    seed: Seed = 0,
    label: Label = None,
) -> None:
    """Walk through the latent space along arcs, and draw what is on the way."""
    check_output(output, ".png")
    if ends and len(ends) != 2:
        raise ValueError(
            f"{len(ends)} picture{'s' * (len(ends) > 1)} to walk between: expected two, or none."
        )
    if ends and (label is not None or seed):
        flag = "--seed" if label is None else "--label"
        raise ValueError(f"{flag}: of the way between two pictures nothing is drawn; leave it out.")
    opened = _open_encoding(run, "walk between") if ends else open_kind(run, "gan")
    label_number = number_of(opened, label)
    console.start_keras()
    from safelight.gan import album, experiment

    model = experiment.load_gan(opened)
    if ends:
        with console.progress() as report:
            originals = read_ends(model, ends, report)
        figure = album.draw_way(model, originals)
    else:
        figure = album.draw_walks(model, num, label=label_number, seed=seed)
    name = "interpolated" if ends or not seed else f"interpolated-seed{seed}"
    name += "" if label is None else f"-{as_file_name(label)}"
    save_picture(figure, output or opened.picture_path(name))


def _open_encoding(run: Path, purpose: str) -> Run:
    """A run of a VAE/GAN, which knows where pictures lie."""
    opened = open_kind(run, "gan")
    if not can_encode(opened):
        raise ValueError(
            f"{run} is a GAN, which has no encoder to {purpose} pictures with: expected a VAE/GAN; "
            "`gan train --autoencoder` trains one."
        )
    return opened
