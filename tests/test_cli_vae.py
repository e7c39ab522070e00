"""`safelight vae` as a newcomer meets it, on folders as they come."""

import io
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from safelight.cli import console
from safelight.cli.flags import parse_size
from safelight.cli.trained import name_source
from safelight.runs import Run

SMALL = ("--epochs", 1, "--latent-dim", 3, "--hidden-units", 8, "--batch-size", 16)


def draw(size, seed):
    """Coloured clouds."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
    return coarse.resize(size[::-1], Image.Resampling.BICUBIC)


def fill(folder, num_images, *, size=(30, 44), first=0):
    folder.mkdir(parents=True)
    for number in range(first, first + num_images):
        draw(size, number).save(folder / f"{number:03d}.png")
    return folder


def check_sentence(code, err):
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith(("safelight: ", "Usage: safelight "))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Non-square colour pictures in two classes."""
    root = tmp_path_factory.mktemp("data") / "photos"
    fill(root / "caché été", 20)
    fill(root / "plain", 20, first=20)
    return root


@pytest.fixture(scope="module")
def trained(photos, leave, tmp_path_factory):
    """A run on the photographs."""
    run = tmp_path_factory.mktemp("runs") / "photos"
    assert leave("vae", "train", photos, "--output", run, *SMALL) == 0
    return run


# --- help


def test_help_of_train_puts_what_matters_first_and_fits_80_columns(call):
    code, out, _ = call("vae", "train", "--help", early=True)
    names = (
        "output",
        "latent-dim",
        "architecture",
        "minutes",
        "seed",
        "test-fraction",
        "free-bits",
    )
    places = [out.index(f"\n  --{name} ") for name in names]
    assert code == 0
    assert places == sorted(places)
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", [["vae", "train", "--help"], ["vae", "--help"]])
def test_help_loads_no_keras(command):
    code = f"import sys; sys.argv = ['safelight', *{command}]\nfrom safelight import cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "assert not {'keras', 'tensorflow', 'matplotlib', 'sklearn'} & set(sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_a_preset_is_trained_with_and_what_is_typed_beside_it_counts(call, photos, tmp_path):
    arguments = ("--output", tmp_path / "run", "--preset", "quick", *SMALL, "--film")
    code, out, err = call("vae", "train", photos, *arguments)
    assert code == 0, err
    film = tmp_path / "run" / "pictures" / "film.gif"
    assert film.is_file()
    assert str(film) in out.replace("\n", "")
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["settings"]
    assert settings["prior"] == "flow"  # the preset's
    assert settings["hidden_units"] == [8]  # typed
    assert (settings["epochs"], settings["minutes"]) == (1, None)


@pytest.mark.parametrize(
    ("text", "expected"), [("64", (64, 64)), ("48x64", (48, 64)), (" 48X64", (48, 64))]
)
def test_a_size_is_a_number_or_two(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "abc", "48x", "48,64", "-3", "1x2x3"])
def test_anything_else_is_no_size(text):
    with pytest.raises(ValueError, match=r"--image-size .*48x64"):
        parse_size(text)


def test_long_words_get_a_line_of_their_own_below_the_bars(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=screen, force_terminal=True, width=80))
    words = "ELBO -98.2 = reconstruction -73.1 - KL 25.1 nats, 17/20 units active, 31k images/s"
    with console.progress() as report:
        report("training", 1, 10, words)
        report("evaluating", 1, 10, "log p(x)")
        report("training", 10, 10, words)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()
    assert max(map(len, lines)) <= 80
    assert words in " ".join(line.strip() for line in lines)
    assert any("evaluating" in line and "log p(x)" in line for line in lines)


# --- mistakes that show before Keras is loaded


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--likelihood", "poisson"], "bernoulli.*discretized_logistic"),
        (["--architecture", "vit"], "dense.*conv"),
        (["--latent-dim", 0], "latent_dim=0"),
        (["--epochs", 3, "--minutes", 1], "epochs=3 and minutes=1"),
        (["--image-size", "abc"], "--image-size abc"),
        (["--image-size", "4x4"], "image_size=4x4"),
        (["--test-fraction", 1.5], "test_fraction"),
        (["--num-samples", 5, "--beta", 4], "importance-weighted"),
        (["--binarization", "dynamic", "--likelihood", "gaussian"], "bernoulli"),
        (["--hidden-units", 0], "hidden_units"),
    ],
)
def test_a_wrong_setting_is_a_sentence(call, photos, tmp_path, arguments, expected):
    run = tmp_path / "run"
    code, _, err = call("vae", "train", photos, "--output", run, *arguments, early=True)
    check_sentence(code, err)
    assert re.search(expected, err, re.DOTALL)
    assert not run.exists()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "holds no readable picture"), (1, "holds 1 picture: .* at least 20"), (19, "19 pictures")],
)
def test_a_folder_with_too_few_pictures_is_a_sentence(call, tmp_path, number, expected):
    fill(tmp_path / "data", number)
    code, _, err = call("vae", "train", tmp_path / "data", "--output", tmp_path / "run", early=True)
    check_sentence(code, err.splitlines()[-1])
    assert re.search(expected, err)


def test_a_missing_folder_is_a_sentence(call, tmp_path):
    code, _, err = call("vae", "train", tmp_path / "no", "--output", tmp_path / "r", early=True)
    check_sentence(code, err)
    assert "does not exist" in err


def test_an_output_that_is_no_run_or_a_finished_one_is_a_sentence(call, photos, tmp_path):
    (tmp_path / "file").touch()
    Run.create(tmp_path / "run").write_metrics({})
    for output in ("file", "file/run", "run"):
        code, _, err = call("vae", "train", photos, "--output", tmp_path / output, early=True)
        check_sentence(code, err)
        assert "--output" in err


@pytest.mark.parametrize("command", ["evaluate", "sample", "reconstruct", "embed", "interpolate"])
def test_what_is_no_trained_run_of_this_kind_is_a_sentence(call, tmp_path, photos, command):
    Run.create(tmp_path / "begun")
    other = Run.create(tmp_path / "other")
    other.write_config({"kind": "transfer"})
    other.model_path.write_bytes(b"model")
    more = {
        "reconstruct": ["x.png"], "embed": [photos, "--output", tmp_path / "z.csv"],
        "interpolate": ["a.png", "b.png"],
    }.get(command, [])  # fmt: skip
    for path, expected in [
        (tmp_path / "nowhere", "does not exist"),
        (photos, "not a run"),
        (tmp_path / "begun", "did not finish"),
        (other.path, "kind 'transfer'"),
    ]:
        code, _, err = call("vae", command, path, *more, early=True)
        check_sentence(code, err)
        assert expected in err


def test_a_place_that_cannot_be_written_is_a_sentence_before_anything_is_computed(
    call, trained, photos, tmp_path
):
    pictures = {
        "sample": [],
        "reconstruct": [photos / "plain" / "020.png"],
        "interpolate": [photos / "plain" / "020.png", photos / "plain" / "021.png"],
    }
    (tmp_path / "folder.png").mkdir()
    for command, more in pictures.items():
        for name, expected in (
            ("x.jpg", "ends in .png"),
            ("no/x.png", "there is no folder"),
            ("folder.png", "a folder is in the way"),
        ):
            output = ("--output", tmp_path / name)
            code, _, err = call("vae", command, trained, *more, *output, early=True)
            check_sentence(code, err)
            assert expected in err
            assert "partial" not in err
    assert not (tmp_path / "x.jpg").exists()
    output = ("--output", tmp_path / "no" / "z.csv")
    code, _, err = call("vae", "embed", trained, photos, *output, early=True)
    check_sentence(code, err)
    assert "there is no folder" in err


def test_a_temperature_without_end_is_a_sentence(call, trained):
    code, _, err = call("vae", "sample", trained, "--temperature", "inf", early=True)
    check_sentence(code, err)
    assert "--temperature inf" in err


def test_a_damaged_config_is_a_sentence(call, tmp_path):
    run = Run.create(tmp_path / "run")
    run.model_path.write_bytes(b"model")
    for text in ('{"half": ', '{"safelight_run": 1, "kind": "vae", "dataset": 3}'):
        (run.path / "config.json").write_text(text)
        run.write_environment()
        run.write_history({})
        code, _, err = call("vae", "evaluate", run.path, early=True)
        check_sentence(code, err)
        assert "config.json" in err


# --- the whole way


def test_a_folder_of_colour_photographs_trains(trained, call):
    run = Run.open(trained)
    assert run.finished
    assert run.config["image_shape"] == [30, 44, 3]
    assert run.config["dataset"]["class_names"] == ["caché été", "plain"]
    assert "safelight-data" not in json.dumps(run.config)
    code, out, _ = call("runs", "list", trained.parent)
    bound = run.metrics["elbo"]
    assert code == 0
    assert "nats" in out
    code, out, _ = call("runs", "show", trained)
    assert f"backend           {keras.backend.backend()}" in out
    for words in ("ELBO", "reconstruction", "less KL", "log p(x)", "active units", "samples.png"):
        assert words in out
    assert f"{bound['value']:.1f} [" in out
    assert "100 importance samples" in out


def test_evaluate_takes_the_own_test_part_or_unseen_pictures(trained, photos, call, tmp_path):
    few = ("--num-importance-samples", 20, "--json")
    code, out, _ = call("vae", "evaluate", trained, *few)
    own = json.loads(out)
    assert code == 0
    assert {
        "elbo", "reconstruction", "kl", "log_likelihood", "standard_error",
        "num_importance_samples", "active_units", "num_images", "protocol",
    } <= set(own)  # fmt: skip
    metrics = Run.open(trained).metrics
    assert own["num_images"] == metrics["num_images"] == 10
    assert own["num_importance_samples"] == 20
    assert own["elbo"]["value"] == pytest.approx(metrics["elbo"]["value"], rel=1e-4)
    code, out, _ = call("vae", "evaluate", trained, photos, *few)
    again = json.loads(out)
    assert again["num_left_out"] == 30
    assert again["log_likelihood"] == pytest.approx(own["log_likelihood"], rel=1e-4)
    others = fill(tmp_path / "others", 5, first=100, size=(60, 60))
    code, out, err = call("vae", "evaluate", trained, others, "--num-importance-samples", 20)
    assert (code, "on 5 pictures" in out) == (0, True)
    assert "without labels" in err


def test_the_own_test_part_is_missed_where_the_folder_is_gone(trained, call, tmp_path):
    moved = shutil.copytree(trained, tmp_path / "far" / "away" / "run")
    code, _, err = call("vae", "evaluate", moved, early=True)
    check_sentence(code, err)
    assert "RUN DATA" in err


def test_samples_are_one_picture_or_a_file_each(trained, call, tmp_path):
    code, out, _ = call("vae", "sample", trained, "--num", 6)
    assert code == 0
    assert (trained / "pictures" / "samples-seed0.png").is_file()
    assert "samples-seed0.png" in out
    code, _, _ = call("vae", "sample", trained, "--num", 6, "--output", tmp_path / "grid.png")
    assert (tmp_path / "grid.png").is_file()
    for seed, folder in ((0, "a"), (0, "b"), (1, "c")):
        call("vae", "sample", trained, "--num", 3, "--output", tmp_path / folder, "--seed", seed)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["sample-0001.png", "sample-0002.png", "sample-0003.png"]
    first, same, other = ((tmp_path / f / files[0]).read_bytes() for f in "abc")
    assert first == same != other
    with Image.open(tmp_path / "a" / files[0]) as picture:
        assert (picture.size, picture.mode) == ((44, 30), "RGB")


def test_reconstruct_answers_the_sound_and_names_the_bad(trained, photos, call, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    output = ("--output", tmp_path / "grid.png")
    code, out, err = call("vae", "reconstruct", trained, photos / "plain", bad, "--json", *output)
    answers = json.loads(out)
    assert code == 1
    assert [answer["file"] for answer in answers if "error" in answer] == [str(bad)]
    assert len(err.splitlines()) == 1
    for answer in answers[:-1]:
        assert answer["elbo"] == pytest.approx(answer["reconstruction"] - answer["kl"], rel=1e-5)
        assert 0 < answer["reconstruction_error"] < 1
    assert (tmp_path / "grid.png").is_file()
    code, _, err = call("vae", "reconstruct", trained, bad)
    check_sentence(code, err.splitlines()[-1])
    code, out, _ = call("vae", "reconstruct", trained, photos / "plain" / "020.png")
    assert code == 0
    assert re.search(r"020\.png  ELBO -?\d+\.\d nats", out)


def test_embed_writes_a_line_for_each_picture(trained, photos, call, tmp_path):
    code, out, _ = call("vae", "embed", trained, photos, "--output", tmp_path / "z.npz")
    assert code == 0
    assert "40 pictures" in out
    with np.load(tmp_path / "z.npz") as file:
        assert file["mean"].shape == file["log_variance"].shape == (40, 3)
        assert set(file["labels"]) == {"caché été", "plain"}
    call("vae", "embed", trained, photos, "--output", tmp_path / "z.csv")
    lines = (tmp_path / "z.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "file,label,mean_0,mean_1,mean_2"
    assert len(lines) == 41
    code, _, err = call("vae", "embed", trained, photos, "--output", tmp_path / "z.txt")
    check_sentence(code, err)


@pytest.mark.parametrize("along", ["linear", "spherical"])
def test_interpolate_draws_the_way(trained, photos, call, tmp_path, along):
    ends = (photos / "plain" / "020.png", photos / "plain" / "021.png")
    path = tmp_path / "way.png"
    command = ("vae", "interpolate", trained)
    code, _, _ = call(*command, *ends, "--along", along, "--output", path)
    assert (code, path.is_file()) == (0, True)
    code, _, err = call(*command, ends[0], tmp_path / "no.png", "--along", along)
    check_sentence(code, err.splitlines()[-1])
    assert "no.png: no such file" in err


def test_a_folder_without_labels_and_a_conditional_model_do_not_go_together(call, tmp_path):
    data = fill(tmp_path / "data", 24, size=(12, 10))
    arguments = ("vae", "train", data, "--output", tmp_path / "run", *SMALL)
    code, _, err = call(*arguments, "--conditional")
    check_sentence(code, err.splitlines()[-1])
    assert "without labels" in err
    assert not (tmp_path / "run").exists()
    code, _, err = call(*arguments)
    assert code == 0, err
    assert Run.open(tmp_path / "run").metrics["probes"] is None


def test_a_conditional_model_asks_for_classes(photos, call, tmp_path):
    run = tmp_path / "run"
    size = ("--image-size", "8x10")
    code, _, err = call("vae", "train", photos, "--output", run, *SMALL, *size, "--conditional")
    assert code == 0, err
    code, _, _ = call("vae", "sample", run, "--num", 3, "--label", "plain")
    assert code == 0
    code, _, err = call("vae", "sample", run, "--label", "fancy", early=True)
    check_sentence(code, err)
    assert "caché été, plain" in err


def test_a_label_for_a_model_without_classes_is_a_sentence(trained, call):
    code, _, err = call("vae", "sample", trained, "--label", "plain", early=True)
    check_sentence(code, err)
    assert "not conditional" in err


def test_a_typing_mistake_with_overwrite_leaves_the_older_run(trained, photos, call, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run")
    flat = fill(tmp_path / "flat", 24)
    code, _, err = call("vae", "train", flat, "--output", run, "--overwrite", "--conditional")
    check_sentence(code, err.splitlines()[-1])
    assert Run.open(run).finished


def test_the_place_of_the_data_is_kept_as_seen_from_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = name_source
    assert name("mnist", tmp_path / "run") == "mnist"
    assert name("data", tmp_path / "runs" / "x") == "../../data"
    (tmp_path / "mnist").mkdir()
    assert name("mnist", tmp_path / "run") == "../mnist"


def safelight(*arguments, **environment):
    """Run the program in an interpreter of its own, as a script would."""
    settings = {**os.environ, "COLUMNS": "80", **environment}
    return subprocess.run(
        [sys.executable, "-m", "safelight", *map(str, arguments)],
        capture_output=True, text=True, env=settings, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    ("data", "settings", "shape"),
    [
        ("mnist", ("--epochs", 1), [28, 28, 1]),
        ("elpv", ("--epochs", 1, "--image-size", 16), [16, 16, 1]),
    ],
)
def test_known_data_train_and_are_judged_again(tmp_path, data, settings, shape):
    run = tmp_path / "run"
    result = safelight("vae", "train", data, "--output", run, *settings)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stderr + result.stdout
    opened = Run.open(run)
    assert opened.config["image_shape"] == shape
    few = ("--num-importance-samples", 10, "--num-images", 100, "--json")
    result = safelight("vae", "evaluate", run, *few)
    assert result.returncode == 0, result.stderr
    judged = json.loads(result.stdout)
    assert judged["num_images"] == 100
    assert judged["elbo"]["value"] == pytest.approx(opened.metrics["elbo"]["value"], rel=0.1)
    if data == "mnist":
        assert opened.metrics["num_images"] == 10_000
        assert opened.metrics["elbo"]["value"] > -160
