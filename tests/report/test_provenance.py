"""The command of a run: typed again, it asks for the same training."""

import dataclasses
import json
import shlex

import numpy as np
import pytest
import typer

from safelight import cli, datasets
from safelight.cli import flags
from safelight.report import advice, sweep
from safelight.report.provenance import licences, tell_command, train_command
from safelight.report.reading import read_run
from safelight.runs import Run
from safelight.transfer.config import TrainConfig as TransferConfig
from safelight.vae.config import TrainConfig as VAEConfig


def parse(line):
    """What the command line makes of a command: the values of its options, by name."""
    words = shlex.split(line)
    command = typer.main.get_command(cli.app)
    assert words.pop(0) == "safelight"
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    return command.make_context("safelight", words).params


def settings_from(line, kind):
    values, known = parse(line), getattr(flags, kind)
    return known.settings({name: values[name] for name in known.help})


def rewrite(run, **changes):
    config = run.config
    for place, value in changes.items():
        config[place] = {**config[place], **value} if isinstance(value, dict) else value
    run.write_config(config)
    return read_run(run.path)


@pytest.mark.parametrize(
    "config",
    [
        TransferConfig(),
        TransferConfig(seed=7, unfreeze_from="block5", views=3, zoom=0.1, pretrained=False),
        TransferConfig(head_layers=("block4_pool/avg", "block5_pool/max"), class_weight="balanced"),
        TransferConfig(horizontal_flip=False, vertical_flip=True, calibrated=False, cached=False),
    ],
)
def test_a_classifiers_command_gives_its_settings(make_classifier, config):
    reading = rewrite(make_classifier(), settings=dataclasses.asdict(config))
    assert settings_from(train_command(reading), "TRANSFER") == config


@pytest.mark.parametrize(
    "config",
    [
        VAEConfig(epochs=3),
        VAEConfig(minutes=2.5, latent_dim=8, hidden_units=(100, 50), image_size=(32, 48), seed=4),
        VAEConfig(epochs=2, likelihood="gaussian", binarization="none", beta=0.5, conditional=True),
    ],
)
def test_an_autoencoders_command_gives_its_settings(make_vae, config):
    run = make_vae()
    run.write_config({**run.config, "settings": dataclasses.asdict(config)})
    assert settings_from(train_command(read_run(run.path)), "VAE") == config


def test_a_model_of_one_class_names_it(make_vae):
    run = make_vae()
    reading = rewrite(run, dataset={"only": "a cat"})
    assert parse(train_command(reading))["only"] == "a cat"


def test_the_command_deals_the_pictures_alike(make_classifier):
    usual = parse(train_command(read_run(make_classifier().path)))
    assert (usual["test_fraction"], usual["validation_fraction"]) == (0.25, 0.1)
    parts = {"train": ["a"] * 100, "validation": ["b"] * 20, "test": ["c"] * 80}
    reading = rewrite(make_classifier(), split={"strategy": "grouped", "digests": parts})
    found = parse(train_command(reading))
    assert (found["test_fraction"], found["split"]) == (0.4, "grouped")


def test_whole_pictures_of_a_small_set_are_no_other_fraction(make_classifier):
    """Of 16 pictures of three classes the three that validate were asked for as a tenth."""
    parts = {"train": ["a"] * 9, "validation": ["b"] * 3, "test": ["c"] * 4}
    reading = rewrite(make_classifier(), split={"digests": parts})
    assert "fraction" not in train_command(reading)


def test_folds_take_the_place_of_fractions(make_classifier):
    parts = {"train": ["a"] * 100, "validation": ["b"] * 20, "test": ["c"] * 80}
    reading = rewrite(make_classifier(), split={"digests": parts})
    found = parse(train_command(reading, "--folds", "5"))
    assert (found["folds"], found["test_fraction"], found["splits"]) == (5, 0.25, 1)


def test_a_new_argument_takes_the_place_of_the_old_one(make_vae):
    line = train_command(read_run(make_vae().path), "--epochs", "12")
    assert parse(line)["epochs"] == 12
    assert line.count("--epochs") == 1
    assert "--output digits-2" in line


def test_names_are_one_word_of_a_shell(make_classifier, hostile):
    reading = read_run(make_classifier("a; rm b", dataset=hostile[0]).path)
    found = parse(train_command(reading))
    assert (found["data"], str(found["output"])) == (hostile[0], "a; rm b")


def test_settings_that_turn_text_around_are_spelt_out_in_a_command(make_classifier):
    path = make_classifier().path / "config.json"
    config = json.loads(path.read_text())
    config["settings"] = {**config["settings"], "backbone": "vgg\u202e16", "epochs": "\x1b[2J"}
    path.write_text(json.dumps(config))
    line = train_command(read_run(path.parent))
    assert line.isprintable()
    assert "vgg\\u202e16" in line


def test_a_name_like_an_option_is_none(make_classifier):
    found = parse(train_command(read_run(make_classifier("-x", dataset="--help").path)))
    assert (found["data"], str(found["output"])) == ("./--help", "-x")


def test_what_was_stopped_is_trained_again_in_its_place(make_classifier):
    found = parse(train_command(read_run(make_classifier().path), "--overwrite"))
    assert (str(found["output"]), found["overwrite"]) == ("pets", True)


def test_licences_are_named_of_what_was_fetched(make_classifier):
    assert [
        each.split(":")[0] for each in licences(read_run(make_classifier(dataset="elpv").path))
    ] == [
        "elpv",
        "vgg16-imagenet-notop",
    ]
    assert len(licences(read_run(make_classifier().path))) == 1


def test_versions_of_somebodys_making_are_spelt_out(make_classifier):
    run = make_classifier()
    path = run.path / "environment.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "safelight": "\x1b[2J", "commit": "\u202e"})
    )
    told = " ".join(str(block) for block in tell_command(read_run(run.path)))
    assert "\\x1b[2J" in told
    assert told.isprintable()


ASKED = [
    ("stratified", {"test_fraction": 0.3, "validation_fraction": 0.12, "splits": 1}),
    ("grouped", {"test_fraction": 0.25, "validation_fraction": 0.1, "splits": 5}),
    ("given", {"test_fraction": 0.25, "validation_fraction": 0.2, "splits": 1}),
    ("stratified", {"validation_fraction": 0.3, "folds": 4}),
]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("strategy", "asked"), ASKED)
def test_what_was_asked_for_is_asked_for_again(make_classifier, strategy, asked, finished):
    """Sizes of parts say something else: two classes of few pictures round every share."""
    parts = {"train": ["a"] * 5, "validation": ["b"] * 2, "test": ["c"] * 3}
    run = make_classifier()
    if not finished:
        (run.path / "metrics.json").unlink()
    split = {"strategy": strategy, "digests": parts, "asked": asked}
    found = parse(train_command(rewrite(run, split=split)))
    usual = {"test_fraction": 0.25, "validation_fraction": 0.1, "splits": 1, "folds": None}
    assert {name: found[name] for name in usual} == {**usual, **asked}
    assert found["split"] == ("grouped" if strategy == "grouped" else None)


def test_splits_take_the_place_of_folds(make_classifier):
    """The command line refuses both."""
    asked = {"validation_fraction": 0.1, "folds": 4}
    found = parse(
        train_command(rewrite(make_classifier(), split={"asked": asked}), "--splits", "9")
    )
    assert (found["folds"], found["splits"]) == (None, 9)


def test_a_model_that_draws_is_asked_for_its_test_part_alone(make_vae, make_gan):
    for run in (make_vae(), make_gan()):
        asked = {"test_fraction": 0.4, "validation_fraction": 0.05}
        assert parse(train_command(rewrite(run, split={"asked": asked})))["test_fraction"] == 0.4


def test_folds_of_an_older_run_that_was_killed_are_found_in_what_was_dealt(make_classifier):
    run = make_classifier()
    (run.path / "metrics.json").unlink()
    assert parse(train_command(rewrite(run, split={"fold": [0, 4]})))["folds"] == 4


@pytest.mark.parametrize("asked", [3, {"validation_fraction": "x"}, {"validation_fraction": None}])
def test_a_damaged_account_of_what_was_asked_is_passed_over(make_classifier, asked):
    parts = {"train": ["a"] * 100, "validation": ["b"] * 20, "test": ["c"] * 80}
    reading = rewrite(make_classifier(), split={"digests": parts, "asked": asked})
    assert parse(train_command(reading))["test_fraction"] == 0.4


# --- a sweep


@pytest.fixture
def swept(tmp_path):
    """A sweep's configuration as the command writes it, and the data set that it was made from."""
    shapes = datasets.make_shapes(200, image_size=8, num_classes=2)
    dataset = dataclasses.replace(shapes, groups=np.arange(200) // 5)
    rules = {"strategy": "grouped", "test_fraction": 0.35, "validation_fraction": 0.15}
    outer = datasets.split(dataset, seed=3, **rules)
    run = Run.create(tmp_path / "sweep")
    run.write_config(
        {
            "kind": "transfer-sweep",
            "dataset": {"name": "shapes", "class_names": list(dataset.class_names)},
            "split": {
                "strategy": outer.strategy,
                "seed": outer.seed,
                "asked": {**outer.asked, "splits": 4},
                "untouched": list(outer.test.digests),
            },
            "cuts": [None, "block5"],
            "settings": dataclasses.asdict(TransferConfig(seed=3, backbone="vgg19", views=1)),
        }
    )
    cuts = [{"name": name, "unfreeze_from": name, "accuracy": {}} for name in (None, "block5")]
    found = {"cuts": cuts, "recommended": "block5", "num_untouched": len(outer.test)}
    run.write_metrics({"sweep": {**found, "num_splits": 4}})
    return run, dataset


def test_the_training_that_a_sweep_advises_is_judged_on_pictures_it_never_saw(swept):
    """That they were not used is true of no other seed, split and fractions."""
    run, dataset = swept
    (step,) = sweep.answer(read_run(run.path)).steps
    found = parse(step.command)
    dealt = datasets.split(
        dataset,
        seed=found["seed"],
        strategy=found["split"],
        test_fraction=found["test_fraction"],
        validation_fraction=found["validation_fraction"],
    )
    assert list(dealt.test.digests) == run.config["split"]["untouched"]
    settings = TransferConfig(seed=3, backbone="vgg19", views=1, unfreeze_from="block5")
    assert settings_from(step.command, "TRANSFER") == settings
    assert (found["splits"], found["folds"]) == (1, None)
    assert "add them" not in str(step.words)


def test_the_sweep_that_a_training_advises_has_its_settings(make_classifier):
    config = TransferConfig(seed=5, backbone="vgg19", views=1)
    asked = {"test_fraction": 0.35, "validation_fraction": 0.15, "folds": 5}
    reading = rewrite(
        make_classifier("x"), settings=dataclasses.asdict(config), split={"asked": asked}
    )
    line = next(
        step.command for step in advice.next_steps(reading, None) if "sweep" in (step.command or "")
    )
    assert settings_from(line, "TRANSFER") == config
    found = parse(line)
    assert (found["test_fraction"], found["validation_fraction"]) == (0.35, 0.15)
    assert (found["splits"], found["seed"], str(found["output"])) == (3, 5, "x-sweep")


RULE = r"/(p\d+|[a-z]{2}\\)_"


@pytest.mark.parametrize(
    ("strategy", "rule", "split"),
    [
        ("grouped", RULE, None),
        ("given-grouped", RULE, None),
        ("stratified", RULE, "stratified"),
        ("given", RULE, "stratified"),
        ("grouped", "", "grouped"),
        ("given", "", None),
    ],
)
def test_a_command_minds_groups_as_the_run_did(make_classifier, strategy, rule, split):
    dataset = {"grouped_by": rule} if rule else {}
    reading = rewrite(make_classifier(), dataset=dataset, split={"strategy": strategy})
    found = parse(train_command(reading))
    assert (found["groups"], found["split"]) == (rule or None, split)


@pytest.mark.parametrize(
    ("rule", "words"), [("groups.csv", "table of groups"), ("", "told in Python"), ("(x)", "")]
)
def test_what_a_run_does_not_know_of_its_groups_is_told(make_classifier, rule, words):
    reading = rewrite(
        make_classifier(dataset="mine"), dataset={"grouped_by": rule}, split={"strategy": "grouped"}
    )
    told = " ".join(str(block.words) for block in tell_command(reading)[1:])
    assert (words in told) if words else ("groups" not in told.lower())


def test_a_sweep_is_not_advised_without_a_validation_part(make_classifier):
    asked = {"test_fraction": 0.25, "validation_fraction": 0.0}
    reading = rewrite(make_classifier(), split={"asked": asked})
    lines = [step.command or "" for step in advice.next_steps(reading, None)]
    (line,) = (each for each in lines if "sweep" in each)
    assert parse(line)["validation_fraction"] == 0.1


def test_a_network_that_is_all_trained_has_nothing_to_unfreeze(make_classifier):
    config = TransferConfig(pretrained=False)
    reading = rewrite(make_classifier(), settings=dataclasses.asdict(config))
    assert not any("sweep" in (step.command or "") for step in advice.next_steps(reading, None))


def test_a_sweeps_own_command_has_its_fractions_splits_and_cuts(swept):
    found = parse(train_command(read_run(swept[0].path)))
    assert (found["test_fraction"], found["validation_fraction"]) == (0.35, 0.15)
    assert (found["splits"], list(found["cut"]), found["split"]) == (4, ["block5"], "grouped")


def test_an_older_sweep_says_that_it_keeps_no_fractions(swept):
    reading = rewrite(swept[0], split={"asked": None})
    told = "If fractions were given, add them"
    assert told in str(sweep.answer(reading).steps[0].words)
    assert told in str(tell_command(reading)[1].words)
