"""`safelight vae train|evaluate|sample|reconstruct|embed|interpolate`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from safelight.cli import console, flags
from safelight.cli.data import (
    Images,
    NewRun,
    Overwrite,
    Strict,
    damage,
    load_pictures,
)
from safelight.cli.look import find_density
from safelight.cli.runs import Json, print_numbers, print_results
from safelight.cli.trained import (
    Data,
    DrawnOutput,
    NumDrawn,
    ReconstructedOutput,
    RunFolder,
    Seed,
    Temperature,
    TestFraction,
    answers_for,
    check_output,
    check_pictures_output,
    class_names_of,
    find_source,
    labels_of,
    load_array,
    load_parts,
    name_drawn,
    name_source,
    number_of,
    open_vae,
    read_ends,
    read_sized,
    save_drawn,
    save_picture,
    show_reconstructions,
    start_training,
)
from safelight.runs import Run
from safelight.vae.config import TrainConfig

if TYPE_CHECKING:
    import numpy as np

    from safelight.vae.models import VAE

app = typer.Typer(
    help="Learn what pictures are made of: a model that encodes, scores and draws them.",
    no_args_is_help=True,
)

Label = Annotated[
    str | None, typer.Option(metavar="CLASS", help="For a conditional model: of which class.")
]


@app.command(short_help="Train a variational autoencoder; leaves a run folder.")
@flags.with_config_flags(flags.VAE)
def train(
    data: Data,
    output: NewRun,
    settings: TrainConfig,
    test_fraction: TestFraction = 0.25,
    only: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="Learn from pictures of this class alone, for `vae anomalies`."
        ),
    ] = None,
    film: Annotated[
        bool, typer.Option("--film", help="Keep how the latent space came to be, as a GIF.")
    ] = False,
    devices: Annotated[
        int,
        typer.Option(min=1, help="Devices that share every batch; more than one need JAX."),
    ] = 1,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Train a variational autoencoder and leave a run folder: model, numbers, pictures.

    Pictures that cannot be read are named and left out. Ctrl-C keeps what was learnt so far,
    finishes the run and exits with 130. A training that was killed goes on if the same command is
    given again.
    """
    from safelight.generative import pictures

    # In this order mistakes show soon: the folders first, Keras (seconds) after them.
    Run.check(output, overwrite=overwrite, resume=True)
    dataset = pictures.keep_class(load_pictures(data, strict=strict), only)
    parts = load_parts(dataset, settings, test_fraction=test_fraction)
    start_training(output, settings.architecture, overwrite=overwrite, devices=devices)
    from safelight.vae.devices import is_leader, sharing

    leads = is_leader(devices)  # processes have to meet before anything is computed
    from safelight.vae import experiment

    config = experiment.resolve(settings, parts)
    if not leads:
        with sharing(devices), console.progress() as report:
            experiment.follow_training(output, parts, config, report=report)
        return
    source = name_source(data, output)
    run = experiment.open_run(
        output, parts, config, source=source, only=only or "", overwrite=overwrite
    )
    with sharing(devices), console.progress() as report:
        metrics = experiment.run_training(run, parts, config, report=report, film=film)
    print_results(run)
    if film:
        console.say(f"film              {console.printable(run.path / 'pictures' / 'film.gif')}")
    console.say(f"run               {console.printable(run.path)}")
    if metrics["protocol"]["interrupted"]:
        raise typer.Exit(130)


@app.command(short_help="Judge a run's model: ELBO, log p(x), active units.")
def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="As for train; by default the run's own test part.",
            show_default=False,
        ),
    ] = None,
    num_importance_samples: Annotated[
        int, typer.Option(min=0, help="Per picture, for log p(x); 0 leaves it out.")
    ] = 5000,
    num_images: Annotated[
        int | None, typer.Option(min=1, help="Judge on so many, drawn by the run's seed.")
    ] = None,
    as_json: Json = False,
    strict: Strict = False,
) -> None:
    """Judge a run's model on its test part, or on those pictures of DATA that it never saw."""
    opened = open_vae(run)
    dataset = load_pictures(data or find_source(opened), strict=strict)
    console.start_keras()
    from safelight import known_pictures
    from safelight.generative import records
    from safelight.vae import experiment
    from safelight.vae.evaluation import evaluate as judge

    with damage(run):
        config = experiment.settings_of(opened)
        part, left_out = (
            known_pictures.unseen_part(opened, dataset)
            if data
            else (records.find_part(opened, dataset, "test"), 0)
        )
    model = experiment.load_vae(opened)
    with console.progress() as report:
        images = experiment.judged_part(load_array(model, part, report), config)
        judged = judge(
            model,
            (images, labels_of(opened, part)) if config.conditional else images,
            num_importance_samples=num_importance_samples,
            num_images=None if num_images is None else min(num_images, len(images)),
            seed=config.seed,
            progress=lambda done, total: report("evaluating", done, total, "log p(x)"),
        )
    result = {**judged.to_dict(), "num_left_out": left_out, "data": part.name}
    result["protocol"] = {"binarization": config.binarization, **result["protocol"]}
    if as_json:
        console.print_json(result)
        return
    print_numbers(result)
    seen = f"; {left_out} left out because training had seen them" if left_out else ""
    console.say(f"on {result['num_images']} pictures{seen}")


@app.command(short_help="Draw new pictures.")
def sample(
    run: RunFolder,
    num: NumDrawn = 64,
    output: DrawnOutput = None,
    seed: Seed = 0,
    temperature: Temperature = 1.0,
    label: Label = None,
    density: Annotated[
        Literal["prior", "gaussian", "mixture", "flow"],
        typer.Option(
            help="What latents are drawn from: the prior, or one Gaussian, a mixture of them or a "
            "flow, fitted to where the training pictures lie (once; it is kept in the run)."
        ),
    ] = "prior",
) -> None:
    """Draw new pictures: what the decoder makes of draws from the prior, or of a fitted density."""
    if not math.isfinite(temperature) or (density != "prior" and temperature != 1):
        raise ValueError(
            f"--temperature {temperature:g} with --density {density}: expected a number of 0 or "
            "more, and 1 for a fitted density, which has a spread of its own."
        )
    if output is not None:
        check_pictures_output(output)
    opened = open_vae(run)
    label_number = number_of(opened, label)
    console.start_keras()
    import numpy as np

    from safelight.vae import album, experiment

    model = experiment.load_vae(opened)
    fitted = None if density == "prior" else find_density(opened, model, density)
    labels = None if label_number is None else np.full(num, label_number)
    drawn_from = "" if density == "prior" else f"-{density}"
    path = output or opened.picture_path(name_drawn(seed, label, temperature, drawn_from))
    options: dict[str, Any] = {"seed": seed, "temperature": temperature, "density": fitted}
    names = class_names_of(opened)
    each = np.arange(num) % model.num_classes if model.num_classes and labels is None else labels
    save_drawn(
        path,
        lambda: album.draw_samples(model, num, labels=labels, class_names=names, **options),
        lambda: album.sample(model, num, labels=each, **options),
    )


@app.command(short_help="Encode pictures and decode them again.")
def reconstruct(
    run: RunFolder,
    images: Images,
    output: ReconstructedOutput = None,
    label: Label = None,
    as_json: Json = False,
) -> None:
    """Encode pictures and decode them again: a line for each with its ELBO and its error.

    A file that cannot be read is one line on standard error, and the others are answered. Exits
    with 0 if all were answered, with 1 if some were, with 2 if none.
    """
    check_output(output, ".png")
    opened = open_vae(run)
    label_number = number_of(opened, label)
    console.start_keras()
    from safelight.vae import experiment

    with damage(run):
        config = experiment.settings_of(opened)
    model = experiment.load_vae(opened)
    labelled = _require_label(model, label_number)
    answers = answers_for(images)
    with console.progress() as report:
        originals = read_sized(model, answers, report)
    told = labelled(len(originals))

    def decode() -> tuple[np.ndarray, dict[str, np.ndarray]]:
        judged = experiment.judged_part(originals, config)
        bounds = model.elbo(judged, told, seed=config.seed)
        return model.reconstruct(originals, told), bounds

    path = output or opened.picture_path("reconstructed")
    show_reconstructions(answers, originals, decode, path, as_json=as_json)


@app.command(short_help="Write what the encoder makes of pictures.")
def embed(
    run: RunFolder,
    data: Data,
    output: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help=".npz: mean, log_variance, files and labels; .csv: a line per picture with file, "
            "label and mean.",
        ),
    ],
    strict: Strict = False,
) -> None:
    """Write the latent mean of every picture in DATA, and in .npz its log variance too."""
    check_output(output, ".npz", ".csv")
    opened = open_vae(run)
    dataset = load_pictures(data, strict=strict)
    console.start_keras()
    from safelight.vae import experiment

    model = experiment.load_vae(opened)
    labels = labels_of(opened, dataset) if model.num_classes else None
    with console.progress() as report:
        mean, log_variance = model.encode(load_array(model, dataset, report), labels)
    experiment.write_latents(output, dataset, mean, log_variance)
    console.say(
        f"{len(mean)} pictures, {mean.shape[1]} numbers each, in {console.printable(output)}"
    )


@app.command(short_help="Walk from one picture to another.")
def interpolate(
    run: RunFolder,
    first: Annotated[Path, typer.Argument(metavar="IMAGE", help="Where the way begins.")],
    second: Annotated[Path, typer.Argument(metavar="IMAGE", help="Where it ends.")],
    num: Annotated[int, typer.Option(min=2, help="Pictures, both ends among them.")] = 10,
    along: Annotated[
        Literal["linear", "spherical"],
        typer.Option(help="A straight line in the latent space, or an arc."),
    ] = "linear",
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="By default among the run's pictures."),
    ] = None,
    label: Label = None,
) -> None:
    """Walk through the latent space from one picture to another, and draw what is on the way."""
    check_output(output, ".png")
    opened = open_vae(run)
    label_number = number_of(opened, label)
    console.start_keras()
    from safelight import plots
    from safelight.vae import evaluation, experiment

    model = experiment.load_vae(opened)
    labelled = _require_label(model, label_number)
    with console.progress() as report:
        ends = read_ends(model, (first, second), report)
    begin, end = model.encode(ends, labelled(2))[0]
    way = evaluation.interpolate(
        model, begin, end, num=num, spherical=along == "spherical", label=label_number
    )
    figure = plots.plot_interpolation(way[None], originals=(ends[:1], ends[1:]))
    save_picture(figure, output or opened.picture_path("interpolated"))


def _require_label(model: VAE, label: int | None) -> Any:
    """From a number of pictures to their labels, all the same; `None` where no model asks."""
    import numpy as np

    if model.num_classes and label is None:
        raise ValueError("this model is conditional: say the pictures' class with --label.")
    return lambda num: None if label is None else np.full(num, label)
