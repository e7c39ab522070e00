"""`safelight vae anomalies|rate-distortion`, and the densities of `vae sample`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli import console, flags
from safelight.cli.data import NewRun, Overwrite, Strict, damage, load_pictures
from safelight.cli.runs import Json, print_results
from safelight.cli.trained import (
    Data,
    RunFolder,
    TestFraction,
    find_source,
    labels_of,
    load_array,
    load_parts,
    name_source,
    open_vae,
    save_picture,
    start_training,
)
from safelight.datasets import ImageDataset
from safelight.runs import Run
from safelight.vae.config import TrainConfig

if TYPE_CHECKING:
    from safelight.vae.densities import Density
    from safelight.vae.models import VAE

app = typer.Typer()
PARTS = ("train", "validation", "test")


@app.command(short_help="Score pictures by how odd they are.")
def anomalies(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA]",
            help="As for train; by default what the run was trained on, the left out classes too.",
            show_default=False,
        ),
    ] = None,
    normal: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="The class that is no anomaly; by default that of `vae train --only CLASS`.",
        ),
    ] = None,
    as_json: Json = False,
    strict: Strict = False,
) -> None:
    """Score pictures that the run never saw by how odd they are to a model of normal ones.

    Four scores: minus the ELBO, the error of the reconstruction, and how improbable the latents are
    under the prior and among those of the pictures learned from. Where classes are known, AUROC
    says how well each tells anomalies. Leaves anomalies.csv and pictures in the run.
    """
    opened = open_vae(run)
    source = load_pictures(find_source(opened), strict=strict)
    judged = source if data is None else load_pictures(data, strict=strict)
    normal = _normal_class(opened, judged, normal)
    console.start_keras()
    from safelight import known_pictures
    from safelight.generative import records
    from safelight.vae import anomalies as odd
    from safelight.vae import experiment

    with damage(run):
        config = experiment.settings_of(opened)
        learned = records.find_part(opened, source, "train")
        unseen, _ = known_pictures.unseen_part(opened, _test_pictures(judged))
    model = experiment.load_vae(opened)
    with console.progress() as report:
        images = experiment.judged_part(load_array(model, unseen, report), config)
        known = experiment.learned_part(load_array(model, learned, report), config)
    told = None if normal is None else unseen.labels != unseen.class_names.index(normal)
    found = odd.report_anomalies(
        model, images, learned=known, is_anomalous=told, normal=normal or "", seed=config.seed
    )
    odd.write_scores(opened, unseen, found)
    for name, figure in odd.draw_anomalies(model, images, unseen, report=found).items():
        save_picture(figure, opened.picture_path(name), quiet=as_json)
    if as_json:
        console.print_json(found.to_dict())
        return
    _say_scores(found.to_dict(), opened)


@app.command(short_help="Train with several beta: what latents hold against what is lost.")
@flags.with_config_flags(flags.VAE_CURVE)
def rate_distortion(
    data: Data,
    output: NewRun,
    betas: Annotated[
        str, typer.Option(metavar="NUMBERS", help="Weights of the KL divergence, comma between.")
    ] = "0.25,0.5,1,2,4",
    *,
    settings: TrainConfig,
    test_fraction: TestFraction = 0.25,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Train a model for each beta: its rate (KL) against its distortion, on the test part.

    --epochs or --minutes are those of each training. One that was stopped goes on if the same
    command is given again, and what was done before is kept. Leaves a run folder with
    rate_distortion.csv and a picture.
    """
    weights = _parse_betas(betas)
    Run.check(output, overwrite=overwrite, resume=True)
    dataset = load_pictures(data, strict=strict)
    parts = load_parts(dataset, settings, test_fraction=test_fraction)
    start_training(output, settings.architecture, overwrite=overwrite)
    from safelight.vae import experiment
    from safelight.vae import rate_distortion as curves

    config = experiment.resolve(settings, parts)
    run = curves.open_curve(
        output,
        parts,
        config,
        betas=weights,
        source=name_source(data, output),
        overwrite=overwrite,
    )
    with console.progress() as report:
        curves.run_curve(run, parts, config, betas=weights, report=report)
    print_results(run)
    console.say(f"{'run':<18}{console.printable(run.path)}")


def find_density(run: Run, model: VAE, name: str) -> Density:
    """A density fitted to the latents of a run's pictures: the one that is kept, or a new one.

    Args:
        run: Trained.
        model: Its model.
        name: `"gaussian"`, `"mixture"` or `"flow"`.
    """
    from safelight.vae import densities, fitted_flows, flows

    kind: type[densities.Fitted] = densities.FittedDensity
    fit: Callable[..., densities.Fitted] = densities.fit_density
    if name == "flow":
        flows.check_units(model.latent_dim)
        kind, fit = fitted_flows.FittedFlow, fitted_flows.fit_flow
    fitted = densities.read_density(run, kind)
    if fitted is None:
        fitted = fit(model, **_load_parts(run, model))
        densities.keep_density(run, fitted)
    density, gain = fitted.named(name)
    if density.latent_dim != model.latent_dim:
        raise ValueError(
            f"{run.path / kind.FILE}: a density of {density.latent_dim} latent units, and the "
            f"run's model has {model.latent_dim}: it is of another model; delete it and sample "
            "again."
        )
    console.say(
        f"{'density':<18}{density.describe()}: latents of held-out pictures are {gain.value:.1f} "
        f"[{gain.low:.1f}, {gain.high:.1f}] nats more probable than under the prior"
    )
    return density


def _load_parts(run: Run, model: VAE) -> dict[str, Any]:
    """The pictures of the three parts of a run as the model knows them, with labels if it asks."""
    from safelight.generative import records
    from safelight.vae import experiment

    source = load_pictures(find_source(run))
    with damage(run.path):
        config = experiment.settings_of(run)
        parts = {name: records.find_part(run, source, name) for name in PARTS}
    found: dict[str, Any] = {"seed": config.seed}
    with console.progress() as report:
        for name, part in parts.items():
            images = load_array(model, part, report)
            kind = experiment.learned_part if name == "train" else experiment.judged_part
            images = kind(images, config)
            found[name] = (images, labels_of(run, part)) if config.conditional else images
    return found


def _parse_betas(text: str) -> tuple[float, ...]:
    """The numbers of `0.5,1,2`.

    Raises:
        ValueError: Something else stands there.
    """
    try:
        betas = sorted(float(number) for number in text.split(","))
    except ValueError:
        betas = []
    if not betas or len(set(betas)) < len(betas) or not all(0 <= b < math.inf for b in betas):
        raise ValueError(
            f"--betas {text}: expected numbers of 0 or more, each once, comma between, such as "
            "0.25,0.5,1,2,4."
        )
    return tuple(betas)


def _normal_class(run: Run, dataset: ImageDataset, named: str | None) -> str | None:
    """The class that is no anomaly; `None` for pictures without labels.

    Raises:
        ValueError: It is not said which, or there is none of that name.
    """
    with damage(run.path):
        name = named or run.config["dataset"].get("only")
    if not dataset.class_names and named is None:
        return None
    if name is None:
        raise ValueError(
            f"{run.path} has learned from all classes: say with --normal CLASS which of "
            f"{', '.join(dataset.class_names)} is no anomaly."
        )
    if name not in dataset.class_names:
        known = ", ".join(dataset.class_names) or "none, as it was read without labels"
        raise ValueError(
            f"--normal {name}: {dataset.name} has no such class; expected one of its classes "
            f"({known})."
        )
    return name


def _test_pictures(dataset: ImageDataset) -> ImageDataset:
    """Where a data set brings its own test part (MNIST), that alone."""
    if dataset.parts is None or "test" not in dataset.parts:
        return dataset
    return dataset.subset([i for i, part in enumerate(dataset.parts) if part == "test"])


def _say_scores(found: dict[str, Any], run: Run) -> None:
    scores = found["protocol"]["scores"]
    for name, words in scores.items():
        if name in found["auroc"]:
            area = found["auroc"][name]
            numbers = " ".join(f"{area[end]:.3f}" for end in ("value", "low", "high")).split()
            label = f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"
            console.say(f"{'AUROC':<18}{label}  {words}")
    if found["num_anomalous"] is not None:
        normal = found["num_images"] - found["num_anomalous"]
        console.say(
            f"{'judged on':<18}{found['num_anomalous']:,} anomalies and {normal:,} pictures of "
            f"{console.printable(found['normal'])}, none of them learned from"
        )
    console.say(f"{'scores':<18}{console.printable(run.path / 'anomalies.csv')}")
