"""`safelight vae anomalies`: what a trained autoencoder finds odd."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.cli import console
from safelight.cli.data import Strict, damage, load_pictures
from safelight.cli.runs import Json
from safelight.cli.trained import RunFolder, find_source, load_array, open_vae, save_picture

if TYPE_CHECKING:
    from safelight.datasets import ImageDataset
    from safelight.runs import Run

app = typer.Typer()


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
    from safelight.vae import anomalies as odd
    from safelight.vae import experiment

    with damage(run):
        config = experiment.settings_of(opened)
        learned = experiment.find_part(opened, source, "train")
        unseen, _ = experiment.unseen_part(opened, _test_pictures(judged))
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
