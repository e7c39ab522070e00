"""`safelight transfer train|learning-curve|sweep|evaluate|predict|unfamiliar|compare`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from safelight.cli import console, flags
from safelight.cli.data import (
    Groups,
    Images,
    NewRun,
    Overwrite,
    Strict,
    Threshold,
    damage,
    find_strategy,
    leave,
    list_files,
    load_data,
    open_trained,
    read_pictures,
    tell_groups,
)
from safelight.cli.explain import (
    Check,
    Explain,
    Replace,
    name_pictures,
    say_agreement,
    write_explanations,
)
from safelight.cli.runs import Json, print_learning_curve, print_numbers, print_results
from safelight.cli.volume import (
    Address,
    Listed,
    MaybeImages,
    Table,
    Volume,
    Where,
    Workers,
    computing,
    find_executor,
)
from safelight.datasets import ImageDataset, Splits
from safelight.runs import Run
from safelight.transfer.config import TrainConfig

_TEST_FRACTION = 0.25
app = typer.Typer(
    help="Make a classifier from a pretrained network and a folder of pictures.",
    no_args_is_help=True,
)

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="`elpv`, `mnist`, `fashion-mnist`, or a folder with a sub-folder of pictures per "
        "class.",
    ),
]
Split = Annotated[
    Literal["stratified", "grouped"] | None,
    typer.Option(
        help="`grouped` keeps together what belongs together (elpv: blocks of 60 cells), "
        "`stratified` minds classes and copies alone. By default grouped with --groups.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A folder that `transfer train` made.")
]


@app.command(short_help="Train a classifier; leaves a run folder.")
@flags.with_config_flags(flags.TRANSFER)
def train(
    data: Data,
    output: NewRun,
    settings: TrainConfig,
    split: Split = None,
    groups: Groups = None,
    test_fraction: Annotated[
        float, typer.Option(help="Share of the pictures that only judge.")
    ] = _TEST_FRACTION,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of the pictures that decide when to stop.")
    ] = 0.1,
    splits: Annotated[
        int,
        typer.Option(
            help="Train and judge on so many random splits, with one interval over all; the model "
            "is that of the first."
        ),
    ] = 1,
    folds: Annotated[
        int | None,
        typer.Option(
            metavar="K",
            help="Cross-validate: train K times, each time on all but one of K equal folds, so "
            "that every picture judges once; the model is that of the first fold.",
        ),
    ] = None,
    threshold: Threshold = 0.5,
    overwrite: Overwrite = False,
    strict: Strict = False,
    executor: Where = "local",
    workers: Workers = None,
    address: Address = None,
) -> None:
    """Train a classifier and leave a run folder: model, numbers with intervals, pictures.

    Pictures that cannot be read are named and left out. Ctrl-C during fine-tuning keeps the best
    weights so far, finishes the run and exits with 130; so it does while other splits or folds are
    trained, of which then none counts but the first.
    """
    from safelight import datasets
    from safelight.folds import deal_folds

    # In this order mistakes show soon: the folders first, Keras (seconds) after them.
    where = find_executor(executor, workers, address)
    Run.check(output, overwrite=overwrite)
    _check_numbers(splits, folds, test_fraction)
    dataset = load_data(data, strict=strict, threshold=threshold, groups=groups)
    rules = {"validation_fraction": validation_fraction, "strategy": find_strategy(split, groups)}
    _check_parts(dataset, splits, folds, test_fraction)
    if folds:
        dealt = list(deal_folds(dataset, num_folds=folds, seed=settings.seed, **rules))
    else:
        seeds = range(settings.seed, settings.seed + splits)
        rules["test_fraction"] = test_fraction
        dealt = [datasets.split(dataset, seed=seed, **rules) for seed in seeds]
    console.start_keras()
    from safelight.transfer.experiment import run_training

    _check(settings, dealt[0])
    run = Run.create(output, overwrite=overwrite)
    with console.progress() as report, computing(where):
        metrics = run_training(
            run, dealt[0], settings, dataset=dataset, report=report, others=dealt[1:]
        )
    print_results(run)
    console.say(f"run               {console.printable(run.path)}")
    protocol = metrics["protocol"]
    if protocol["interrupted"] or protocol.get("stopped_splits"):
        raise typer.Exit(130)


def _check_numbers(splits: int, folds: int | None, test_fraction: float) -> None:
    if splits < 1:
        raise ValueError(f"--splits {splits}: expected 1 or more.")
    if folds is None:
        return
    if folds < 2:
        raise ValueError(f"--folds {folds}: expected 2 or more.")
    if splits > 1:
        raise ValueError(
            f"--folds {folds} and --splits {splits}: expected one of them, as folds are no random "
            "splits."
        )
    if test_fraction != _TEST_FRACTION:
        raise ValueError(
            f"--test-fraction {test_fraction}: expected none beside --folds {folds}, where one in "
            f"{folds} pictures judges each time."
        )


def _check_parts(
    dataset: ImageDataset, splits: int, folds: int | None, test_fraction: float
) -> None:
    if "test" in (dataset.parts or ()) and test_fraction != _TEST_FRACTION:
        raise ValueError(
            f"--test-fraction {test_fraction}: {console.printable(dataset.name)} brings its own "
            "test part, all of which judges; leave it out."
        )
    if dataset.parts and (folds or splits > 1):
        flag, word = (f"--folds {folds}", "folds") if folds else (f"--splits {splits}", "splits")
        raise ValueError(
            f"{flag}: {console.printable(dataset.name)} brings its own parts, which other {word} "
            "would not respect: expected --splits 1."
        )


def _check(settings: TrainConfig, splits: Splits, *cuts: str | None) -> None:
    """Finds what would stop a training, or those of several cuts, before a run gives way to it."""
    from safelight.transfer.backbones import find_backbone, load_backbone
    from safelight.transfer.feature_cache import FeatureCache
    from safelight.transfer.training import check

    network = load_backbone(settings.backbone, image_size=settings.image_size, weights=None)
    for cut in cuts or (settings.unfreeze_from,):
        check(splits, dataclasses.replace(settings, unfreeze_from=cut), network)
    FeatureCache()
    if settings.pretrained:
        console.fetch(find_backbone(settings.backbone).weights)


@app.command(short_help="Say what more labelled pictures would give.")
def learning_curve(
    run: RunFolder,
    data: Data,
    as_json: Json = False,
    strict: Strict = False,
    threshold: Threshold = 0.5,
) -> None:
    """Say what more labelled pictures would give, from trainings on fewer of them.

    DATA is what the run was trained on. Its pictures are dealt out six times anew, always without
    the run's test part; numbers and a picture are added to the run.
    """
    opened, _ = _open(run)
    dataset = load_data(data, strict=strict, threshold=threshold)
    console.start_keras()
    from safelight.transfer import experiment

    with damage(run):
        settings = experiment.settings_of(opened)
        dealt = experiment.deal_learned(opened, dataset)
    _check(settings, dealt.splits[0][-1])
    with console.progress() as report:
        found = experiment.add_learning_curve(opened, dataset, report=report)
    if as_json:
        console.print_json(found)
        return
    print_learning_curve(found)
    console.say(f"{'picture':<18}{console.printable(opened.picture_path('learning_curve'))}")


@app.command(short_help="Say which layers to unfreeze, by accuracy and time.")
@flags.with_config_flags(flags.TRANSFER)
def sweep(
    data: Data,
    output: NewRun,
    settings: TrainConfig,
    cut: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="A value of --unfreeze-from to try; to be repeated. `none`, the head alone, is "
            "always tried. By default it and the network's last block (vgg16: also block5_conv3).",
        ),
    ] = None,
    splits: Annotated[
        int, typer.Option(help="Random splits that every cut is trained and judged on.")
    ] = 3,
    split: Split = None,
    groups: Groups = None,
    test_fraction: Annotated[
        float,
        typer.Option(help="Share that stays unseen, as in `train`; and of the rest, that judges."),
    ] = 0.25,
    validation_fraction: Annotated[
        float, typer.Option(help="Share that decides when a training stops.")
    ] = 0.1,
    threshold: Threshold = 0.5,
    overwrite: Overwrite = False,
    strict: Strict = False,
) -> None:
    """Say which layers to unfreeze: the same training at several cuts, its accuracy and time.

    The test part of `transfer train` with the same flags stays unseen: every split is dealt from
    the other pictures. Leaves a run folder with numbers and a picture.
    """
    from safelight import datasets

    if settings.unfreeze_from is not None:
        raise ValueError(
            f"--unfreeze-from {settings.unfreeze_from}: a sweep tries several, expected --cut "
            f"{settings.unfreeze_from} instead."
        )
    if splits < 2:
        raise ValueError(f"--splits {splits}: expected 2 or more, as one shows no spread.")
    Run.check(output, overwrite=overwrite)
    dataset = load_data(data, strict=strict, threshold=threshold, groups=groups)
    fractions = {"test_fraction": test_fraction, "validation_fraction": validation_fraction}
    strategy = find_strategy(split, groups)
    outer = datasets.split(dataset, seed=settings.seed, strategy=strategy, **fractions)
    console.start_keras()
    from safelight.transfer import sweep as sweeping

    dealt = sweeping.deal_inside(dataset, outer, num_splits=splits, **fractions)
    wanted = [None if each == "none" else each for each in cut or ()]
    cuts = sweeping.check_cuts(settings, wanted or sweeping.default_cuts(settings.backbone))
    _check(settings, dealt.splits[0], *cuts)
    run = Run.create(output, overwrite=overwrite)
    with console.progress() as report:
        sweeping.run_sweep(run, dealt, settings, cuts, report=report)
    print_results(run)
    console.say(f"{'run':<18}{console.printable(run.path)}")


@app.command(short_help="Judge a run's model on other pictures.")
def evaluate(
    run: RunFolder,
    data: Data,
    as_json: Json = False,
    strict: Strict = False,
    threshold: Threshold = 0.5,
    groups: Groups = None,
) -> None:
    """Judge a run's model on those pictures of DATA that it was not trained or chosen on."""
    opened, _ = _open(run)
    everything = load_data(data, strict=strict, threshold=threshold, groups=groups)
    console.start_keras()
    from safelight import known_pictures
    from safelight.transfer import evaluation, experiment

    with damage(run):
        config = experiment.settings_of(opened)
        grouped = groups is not None or known_pictures.keeps_groups(opened)
        told = everything.groups is not None
        if grouped:
            everything = known_pictures.with_groups(opened, everything)
    dataset, left_out = experiment.unseen_part(opened, everything)
    if grouped:
        tell_groups(opened, everything, dataset, told=told)
    model = experiment.load_classifier(opened)
    with console.progress() as report:
        judged = evaluation.evaluate(
            model,
            dataset,
            config=config,
            progress=lambda done, total: report("evaluating", done, total, ""),
            groups=dataset.groups if grouped else None,
        )
    result = {**judged.to_dict(), "num_left_out": left_out, "data": dataset.name}
    if as_json:
        console.print_json(result)
        return
    print_numbers(result)
    seen = f"; {left_out} left out because training had seen them" if left_out else ""
    console.say(f"on {result['num_test']} pictures{seen}")


@app.command(short_help="Say what is on pictures.")
def predict(
    run: RunFolder,
    images: MaybeImages = None,
    output: Table = None,
    listed: Listed = None,
    refuse: Annotated[
        float,
        typer.Option(
            metavar="RATE",
            help="Answer `none of these` for a picture that is less familiar than all but this "
            "share of those learned from (0.05: one in twenty is refused wrongly).",
        ),
    ] = 0.0,
    explain: Explain = None,
    check: Check = False,
    overwrite: Replace = False,
    executor: Where = "local",
    workers: Workers = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Say what is on pictures: a line for each with its file, class and probability.

    With --refuse pictures of something else are not given a class; with --explain DIR a picture of
    each shows where its answer comes from. A file that cannot be read is one line on standard
    error, and the others are answered. Exits with 0 if all were answered, with 1 if some were, with
    2 if none.

    With --output the answers to any number of pictures become a table: its columns are file,
    prediction, probability and p(CLASS) of each class, with --refuse also familiarity and refused.
    Whatever the number, memory stays the same, and the same command goes on where it was broken
    off.
    """
    if not 0 <= refuse < 1:
        raise ValueError(f"--refuse {refuse}: expected a rate of false alarms, 0 <= RATE < 1.")
    volume = Volume(output, listed, executor, workers, address)
    volume.check(images, explain=explain)
    if explain is None and (check or (overwrite and output is None)):
        wanted = "--explain DIR" if check else "--explain DIR or --output TABLE"
        raise ValueError(f"{'--check' if check else '--overwrite'}: expected {wanted} with it.")
    opened, names = _open(run)
    if output is not None:
        volume.answer(opened, images, refuse=refuse, overwrite=overwrite, as_json=as_json)
        return
    files = list_files(images or [])
    targets = name_pictures(explain, files, overwrite=overwrite) if explain else []
    console.start_keras()
    from safelight.transfer import experiment, prediction, references, unfamiliar

    with damage(run):
        experiment.settings_of(opened)
    known = unfamiliar.read_familiarity(opened) if refuse else None
    if known is not None:
        known.check_rate(refuse)
    model = experiment.load_classifier(opened)
    if model.output_shape[-1] != len(names):
        raise ValueError(f"{run}: damaged, its model does not know the {len(names)} classes.")
    answers: list[dict[str, Any]] = [{"file": str(file)} for file in files]
    with console.progress() as report:
        found = prediction.answer(model, read_pictures(answers, report, "predicting"))
    answered = [answer for answer in answers if "error" not in answer]
    for answer, row in zip(answered, found.probabilities, strict=True):
        probabilities = {name: float(p) for name, p in zip(names, row, strict=True)}
        answer |= {"prediction": names[int(row.argmax())], "probabilities": probabilities}
    if known is not None and answered:
        for answer, p_value in zip(answered, known.p_values(found.features), strict=True):
            answer |= {"familiarity": float(p_value), "refused": bool(p_value <= refuse)}
            answer["prediction"] = None if answer["refused"] else answer["prediction"]
    if explain is not None:
        sound = [t for t, answer in zip(targets, answers, strict=True) if "error" not in answer]
        usual = references.read_references(opened.path)
        with console.progress() as report:
            write_explanations(model, usual, answered, sound, report, check=check)
    if as_json:
        console.print_json(answers)
    else:
        _say_answers(answered)
        if explain is not None and answered:
            console.say(f"{'explanations':<18}{console.printable(explain)}")
    leave(answers)


@app.command(short_help="Say how well a run tells other people's pictures from its own.")
def unfamiliar(run: RunFolder, images: Images, as_json: Json = False) -> None:
    """Say how well a run tells other people's pictures from its own test part.

    IMAGES are pictures of something that the run was not trained on; a number near 1 says that
    `predict --refuse` can be relied on for such.
    """
    opened, _ = _open(run)
    console.start_keras()
    from safelight.transfer import experiment, prediction
    from safelight.transfer import unfamiliar as foreign

    with damage(run):
        foreign.read_familiarity(opened)
    answers: list[dict[str, Any]] = [{"file": str(file)} for file in list_files(images)]
    model = experiment.load_classifier(opened)
    with console.progress() as report:
        found = prediction.answer(model, read_pictures(answers, report, "looking"))
    if not len(found.features):
        leave(answers)
    judged = foreign.judge_foreign(opened, found.features)
    if as_json:
        console.print_json(judged)
    else:
        console.say(
            f"{'AUROC':<18}{judged['auroc']:.4f}, {judged['num_foreign']} pictures against "
            f"{judged['num_familiar']} of the test part"
        )
        for rate, share in judged["refused"].items():
            label = f"--refuse {rate}"
            console.say(f"{label:<18}refuses {console.percent(share)} of them")
    leave(answers)


@app.command()
def compare(
    run: RunFolder,
    other: Annotated[Path, typer.Argument(metavar="RUN", help="Another one on the same data.")],
    as_json: Json = False,
) -> None:
    """Say whether the first run is better than the second, on the same splits or pictures."""
    from safelight.transfer.run_comparison import compare_runs

    with damage(f"{run} or {other}"):
        found = compare_runs(Run.open(run), Run.open(other))
    if as_json:
        console.print_json(found)
        return
    for name, interval in found["difference"].items():
        value, low, high = (interval[end] for end in ("value", "low", "high"))
        certain = "  (not by chance)" if low > 0 or high < 0 else ""
        console.say(f"{name.replace('_', ' '):<18}{value:+.4f} [{low:+.4f}, {high:+.4f}]{certain}")
    console.say(f"first minus second, on {found['on']}; {found['method']}")


def _say_answers(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        file, best = console.printable(answer["file"]), answer["prediction"]
        if best is None:
            console.say(f"{file}  none of these  (familiarity {answer['familiarity']:.3f})")
            continue
        line = f"{file}  {console.printable(best)}  {answer['probabilities'][best]:.1%}"
        if "agreement" in answer:
            line += f"  map and covering agree: {say_agreement(answer['agreement'])}"
        console.say(line)


def _open(path: Path) -> tuple[Run, list[str]]:
    """A run with a model, and its class names; cheap, so that mistakes show before Keras loads."""
    opened = open_trained(path)
    with damage(path):
        return opened, [str(name) for name in opened.config["dataset"]["class_names"]]
