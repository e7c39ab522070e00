"""The command of a run: typed again, it asks for the same training."""

import dataclasses
import json
import shlex

import pytest
import typer

from safelight import cli
from safelight.cli import flags
from safelight.report.provenance import licences, tell_command, train_command
from safelight.report.reading import read_run
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
