"""The command line as a newcomer meets it: mistakes are one sentence, bad files are named."""

import dataclasses
import functools
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from safelight.cli import console, flags
from safelight.runs import Run

COLOURS = {"caché été": (200, 60, 50), "dots [red]x": (60, 180, 70), "plain": (50, 80, 200)}
REAL_ASSETS = Path("~/.cache/safelight/assets").expanduser()


def safelight(*arguments, home=None, cwd=None, **environment):
    """Run the program in an interpreter of its own, as a script would."""
    settings = {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **environment}
    if home is not None:
        settings["SAFELIGHT_HOME"] = str(home)
    return subprocess.run(
        [sys.executable, "-m", "safelight", *map(str, arguments)],
        capture_output=True, text=True, cwd=cwd, env=settings, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def call(call):
    """Run the program inside this process, for mistakes that show before Keras is loaded."""
    return functools.partial(call, early=True)


# --- a folder as it comes


def draw(rng, colour, width, height):
    """A disc on coloured clouds."""
    clouds = Image.fromarray(rng.integers(0, 60, (6, 6, 3)).astype(np.uint8))
    soft = np.asarray(clouds.resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[0:height, 0:width]
    middle_x, middle_y = rng.uniform(0.3, 0.7, 2) * (width, height)
    radius = rng.uniform(0.15, 0.3) * min(width, height)
    disc = ((x - middle_x) ** 2 + (y - middle_y) ** 2 < radius**2)[..., None]
    ground = np.clip(soft + np.array(colour), 0, 255).astype(np.uint8)
    return Image.fromarray(np.where(disc, np.uint8(230), ground))


def save(picture, number, folder, rng):
    """Save a picture in one of twelve shapes, which take turns."""
    name = folder / f"image {number:02d}"
    suffixes = ".jpg .jpeg .JPG .png .png .png .png .webp .bmp .tiff .gif .png".split()
    kind = number % len(suffixes)
    options = {}
    if kind == 1:
        picture = picture.convert("CMYK")
    elif kind == 2:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    elif kind == 3:
        picture = picture.convert("L")
    elif kind == 4:
        picture = picture.quantize(32)
    elif kind == 5:
        alpha = rng.integers(0, 256, picture.size[::-1]).astype(np.uint8)
        picture.putalpha(Image.fromarray(alpha))
    elif kind == 6:
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    elif kind == 11:
        name = folder / (f"ünïcode 图 {number}" if number < 12 else "long name " + "x" * 180)
    picture.save(name.with_name(name.name + suffixes[kind]), **options)


def huge_png(path, side):
    """A grey PNG of one colour, deflated row by row so that it never is in memory."""

    def chunk(kind, data):
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    deflate = zlib.compressobj(1)
    rows = b"".join(deflate.compress(bytes(side + 1)) for _ in range(side)) + deflate.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def fill(root, *, num_images, names=tuple(COLOURS)):
    """Write class folders of sound pictures in mixed formats, sizes and aspects."""
    rng = np.random.default_rng(0)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(num_images):
            width, height = rng.integers(40, 160, 2).tolist()
            save(draw(rng, COLOURS[name], width, height), number, root / name, rng)
    return root


PROBLEMS = {
    "caché été/text.png": "not a picture",
    "caché été/truncated.jpg": "truncated",
    "dots [red]x/empty.jpg": "empty file",
    "dots [red]x/huge.png": "too large",
    "dots [red]x/one.png": "too small",
    "plain/broken link.jpg": "no such file",
}


def spoil(root):
    """Add one of each bad thing, and copies."""
    first, second, third = (root / name for name in COLOURS)
    whole = (first / "image 00.jpg").read_bytes()
    (first / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (first / "text.png").write_text("no picture")
    Image.new("RGB", (1, 1)).save(second / "one.png")
    huge_png(second / "huge.png", 30_000)
    (second / "empty.jpg").touch()
    (third / "broken link.jpg").symlink_to("nowhere.jpg")
    shutil.copy(first / "image 00.jpg", second / "copy.jpg")
    with Image.open(third / "image 00.jpg") as picture:
        larger = picture.resize((picture.width * 2, picture.height * 2))
    larger.save(third / "near.jpg", quality=60)
    shutil.copy(third / "image 03.png", third / "-dash.png")
    with Image.open(third / "image 08.bmp") as picture:
        picture.rotate(90).save(third / "new\nline [bold]b.png")
    return root


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("sound") / "data", num_images=6)


@pytest.fixture(scope="module")
def messy(tmp_path_factory):
    return spoil(fill(tmp_path_factory.mktemp("messy") / "data", num_images=30))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache folder of its own with the real VGG16 in it."""
    if not (REAL_ASSETS / "vgg16-imagenet-notop.npz").exists():
        pytest.skip("VGG16 has not been fetched")
    folder = tmp_path_factory.mktemp("home")
    (folder / "assets").symlink_to(REAL_ASSETS)
    return folder


@pytest.fixture(scope="module")
def trained(messy, home, tmp_path_factory):
    """What `transfer train` on the messy folder says, and the run that it leaves."""
    run = tmp_path_factory.mktemp("runs") / "messy"
    small = ("--image-size", 32, "--epochs", 2)
    return safelight("transfer", "train", messy, "--output", run, *small, home=home), run


def make_run(path, **metrics):
    """A finished run with a file in the model's place, for what needs no model."""
    run = Run.create(path)
    run.write_config({"kind": "transfer", "dataset": {"name": "d", "class_names": ["a", "b"]}})
    run.model_path.write_bytes(b"garbage")
    run.write_metrics(metrics)
    return run


# --- help


@pytest.mark.parametrize("subject", [flags.TRANSFER, flags.VAE])
def test_every_setting_has_a_flag_with_its_default(subject):
    assert set(subject.help) == {field.name for field in dataclasses.fields(subject.config)}
    options = {option.name: option.default for option in subject.options()}
    assert subject.settings(options) == subject.config()


@pytest.mark.parametrize("subject", [flags.TRANSFER, flags.VAE])
def test_a_preset_is_what_the_config_knows_under_that_name(subject):
    for name in subject.presets:
        options = {option.name: option.default for option in subject.options()}
        assert subject.settings(options, preset=name) == subject.config.preset(name)


def test_what_is_typed_beside_a_preset_counts():
    values = {option.name: option.default for option in flags.VAE.options()}
    typed = {**values, "learning_rate": 5e-4, "prior": "normal", "epochs": 3}
    settings = flags.VAE.settings(typed, preset="quick", typed={"learning_rate", "prior", "epochs"})
    preset = flags.VAE.config.preset("quick")
    assert preset.prior != "normal"  # so typing the default's own value is a change
    assert (settings.learning_rate, settings.prior) == (5e-4, "normal")
    assert (settings.epochs, settings.minutes) == (3, None)
    same = {"learning_rate": 5e-4, "prior": "normal", "epochs": 3, "minutes": None}
    assert settings == dataclasses.replace(preset, **same)


@pytest.mark.slow
def test_the_flag_knows_every_backbone():
    from safelight.transfer.backbones import BACKBONES

    assert tuple(BACKBONES) == flags.BACKBONES


def test_help_of_train_puts_what_matters_first_and_fits_80_columns(call):
    code, out, _ = call("transfer", "train", "--help")
    places = [out.index(f"\n  --{name} ") for name in ("output", "backbone", "epochs", "split")]
    assert code == 0
    assert places == sorted(places)
    assert "<auto|logistic|kernel|dense>" in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize("command", [["transfer", "train", "--help"], ["--version"]])
def test_help_and_version_load_no_keras(command):
    code = f"import sys; sys.argv = ['safelight', *{command}]\nfrom safelight import cli\n"
    code += "try: cli.main()\nexcept SystemExit: pass\n"
    code += "assert not {'keras', 'tensorflow', 'matplotlib', 'sklearn'} & set(sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


# --- mistakes that show before Keras is loaded


def check_sentence(code, err):
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith(("safelight: ", "Usage: safelight "))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--backbone", "vgg17"], "vgg16.*vgg19.*resnet50"),
        (["--head", "nonsense"], "logistic.*dense"),
        (["--epochs", -1], "epochs=-1"),
        (["--dropout", 1], "dropout=1.0"),
        (["--views", 0], "views=0"),
        (["--views", 3, "--no-horizontal-flip", "--rotation", 0, "--zoom", 0], "augmentation.*off"),
        (["--rotation", 15], "rotation=15.0"),
        (["--learning-rate", "nan"], "learning_rate=nan"),
        (["--batch-size", 0], "batch_size=0"),
        (["--test-fraction", 1.5], "test_fraction"),
        (["--test-fraction", "nan"], "test_fraction"),
        (["--split", "grouped"], "no groups"),
        (["--folds", 1], "--folds 1: expected 2 or more"),
        (["--folds", 5, "--splits", 2], "--folds 5 and --splits 2: expected one of them"),
        (["--folds", 5, "--test-fraction", 0.3], "--test-fraction 0.3: expected none"),
        (["--folds", 999], "expected at least 999 for 999 folds"),
        (["--folds", 2, "--split", "grouped"], "no groups"),
        (["--groups", "plain"], "groups 'plain': has 0 pairs of parentheses"),
        (["--groups", "(plain"], "groups '.plain': is no regular expression"),
        (["--groups", "/([0-9]+)"], "says nothing of 18 of 18 pictures"),
        (["--groups", "(.*)"], "each a group of its own"),
        (["--groups", "gone.csv"], "gone.csv: cannot be read as a table"),
        (["--image-size", "abc"], "image-size"),
        (["--imagesize", 3], "--image-size"),
    ],
)
def test_a_wrong_setting_is_a_sentence(call, pictures, tmp_path, arguments, expected):
    code, _, err = call("transfer", "train", pictures, "--output", tmp_path / "run", *arguments)
    check_sentence(code, err)
    assert re.search(expected, err, re.DOTALL)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--unfreeze-from", "auto"], "expected --cut auto"),
        (["--splits", 1], "--splits 1: expected 2 or more"),
        (["--test-fraction", 1.5], "test_fraction"),
        (["--split", "grouped"], "no groups"),
        (["--cuts", "block5"], "--cut"),
    ],
)
def test_a_wrong_sweep_is_a_sentence(call, pictures, tmp_path, arguments, expected):
    code, _, err = call("transfer", "sweep", pictures, "--output", tmp_path / "run", *arguments)
    check_sentence(code, err)
    assert expected in err
    assert not (tmp_path / "run").exists()


def test_a_run_without_a_model_says_what_it_is(call, tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "transfer-sweep"})
    run.write_metrics({"sweep": 3})
    code, _, err = call("transfer", "predict", run.path, "x.jpg")
    check_sentence(code, err)
    assert "a run of kind 'transfer-sweep' keeps no model" in err
    code, _, err = call("runs", "show", run.path)
    check_sentence(code, err)
    assert "damaged" in err


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (None, "does not exist"),
        ("file", "is a file"),
        ([], "is empty"),
        (["a/1.png", "a/2.png", "a/3.png", "a/4.png"], "single class"),
        (["1.png", "2.png"], "no class folders"),
        (["a/1.png", "a/2.png", "a/3.png", "a/4.png", "b/1.png"], "Class 'b'.* 1 readable"),
    ],
)
def test_a_wrong_folder_is_a_sentence(call, tmp_path, layout, expected):
    data = tmp_path / "data"
    if layout == "file":
        data.touch()
    elif layout is not None:
        data.mkdir()
    for number, name in enumerate(layout if isinstance(layout, list) else []):
        (data / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20 + number)).save(data / name)
    code, _, err = call("transfer", "train", data, "--output", tmp_path / "run")
    check_sentence(code, err)
    assert re.search(expected, err)


def test_strict_stops_at_bad_files(call, tmp_path, pictures):
    data = shutil.copytree(pictures, tmp_path / "data")
    (data / "plain" / "bad.png").write_text("no picture")
    code, _, err = call("transfer", "train", data, "--output", tmp_path / "run", "--strict")
    check_sentence(code, err)
    assert "plain/bad.png: not a picture" in err


@pytest.mark.parametrize("flag", [[], ["--overwrite"]])
def test_a_folder_of_others_is_never_touched(call, pictures, tmp_path, flag):
    (tmp_path / "thesis.txt").write_text("years of work")
    (tmp_path / "config.json").write_text('{"model": "mine"}')
    code, _, err = call("transfer", "train", pictures, "--output", tmp_path, *flag)
    check_sentence(code, err)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "thesis.txt"]
    assert (tmp_path / "config.json").read_text() == '{"model": "mine"}'


def test_an_output_that_is_a_file_below_a_file_or_a_finished_run_is_a_sentence(
    call, pictures, tmp_path
):
    (tmp_path / "file").touch()
    make_run(tmp_path / "run", accuracy=1.0)
    for output in ("file", "file/run", "run"):
        code, _, err = call("transfer", "train", pictures, "--output", tmp_path / output)
        check_sentence(code, err)
        assert "--output" in err
    assert Run.open(tmp_path / "run").finished


@pytest.mark.parametrize(
    "command", [["transfer", "predict"], ["transfer", "evaluate"], ["runs", "show"]]
)
def test_what_is_no_run_is_a_sentence(call, tmp_path, pictures, command):
    Run.create(tmp_path / "begun")
    more = [] if command[0] == "runs" else [pictures]
    for path, expected in [
        (tmp_path / "nowhere", "does not exist"),
        (pictures, "not a run"),
        (tmp_path / "begun", "did not finish"),
    ]:
        code, _, err = call(*command, path, *more)
        check_sentence(code, err)
        assert expected in err


def test_a_damaged_config_or_metrics_is_a_sentence(call, tmp_path):
    for name in ("config.json", "metrics.json"):
        run = make_run(tmp_path / name, accuracy=1.0)
        run.write_environment()
        for text in ('{"half": ', '{"safelight_run": 1, "dataset": 3, "accuracy": 4}'):
            (run.path / name).write_text(text)
            command = ["runs", "show"] if name == "metrics.json" else ["transfer", "predict"]
            code, _, err = call(*command, run.path, *([] if name == "metrics.json" else ["x.jpg"]))
            check_sentence(code, err)
            assert name in err


def test_runs_are_listed_as_a_table_and_as_json(call, tmp_path):
    code, out, err = call("runs", "list", tmp_path / "none")
    check_sentence(code, err)
    assert call("runs", "list", tmp_path)[:2] == (0, "")
    metric = {"value": 0.5, "low": 0.4, "high": 0.6}
    make_run(tmp_path / "a [red]b\n", accuracy=metric)
    code, out, _ = call("runs", "list", tmp_path)
    assert code == 0
    # A cell folds where the folder above it has a long name.
    assert "[red]b\\n" in out
    assert "50.0 %" in out
    code, out, _ = call("runs", "list", tmp_path, "--json")
    assert json.loads(out)[0]["path"] == str(tmp_path / "a [red]b\n")
    code, out, _ = call("runs", "show", tmp_path / "a [red]b\n", "--json")
    assert json.loads(out)["metrics"]["accuracy"] == metric


def test_show_tells_folds_from_splits_and_their_pooled_accuracy(call, tmp_path):
    metric = {"value": 0.9, "low": 0.85, "high": 0.95}
    splits = {"num_splits": 5, "mean": {"accuracy": metric}}
    folds = {**splits, "num_folds": 5, "pooled": {"num_test": 2624, "accuracy": metric}}
    _, out, _ = call("runs", "show", make_run(tmp_path / "splits", splits=splits).path)
    assert out == "5 splits          accuracy 90.0 % [85.0, 95.0]\n"
    _, out, _ = call("runs", "show", make_run(tmp_path / "folds", splits=folds).path)
    assert out.splitlines() == [
        "5 folds           accuracy 90.0 % [85.0, 95.0]",
        "5 folds           pooled accuracy 90.0 % [85.0, 95.0] on all 2,624 pictures, each judged "
        "once",
    ]


def test_show_names_the_page_on_the_data_and_ends_with_what_to_beware_of(call, tmp_path):
    run = make_run(tmp_path / "run", data={"neighbours": {"advice": "Series are torn\napart."}})
    run.write_data_page("# The pictures of d\n")
    code, out, _ = call("runs", "show", run.path)
    assert code == 0
    *_, page, advice = out.splitlines()
    assert page.split(maxsplit=3) == ["about", "the", "data", str(run.path / "data.md")]
    assert advice.split(maxsplit=1) == ["beware", "Series are torn\\napart."]
    code, out, _ = call("runs", "show", make_run(tmp_path / "old", data={}).path)
    assert (code, out) == (0, "")


def test_an_unknown_asset_is_a_sentence_that_lists_them(call):
    code, _, err = call("assets", "fetch", "vgg61")
    check_sentence(code, err)
    assert "vgg16-imagenet-notop" in err


def test_json_is_ascii_and_keeps_names_that_are_no_unicode(capsys):
    names = ["图\n", os.fsdecode(b"caf\xe9"), "😀"]
    console.print_json(names)
    out = capsys.readouterr().out
    assert out.isascii()
    # What UTF-8 cannot hold is spelt out or kept, but never an error.
    assert json.loads(out)[::2] == names[::2]
    assert console.printable(names[0]) == "图\\n"
    assert console.printable(names[1]) == "caf\\udce9"


# --- the whole way


@pytest.mark.slow
@pytest.mark.assets
def test_a_messy_folder_trains_and_names_each_problem(trained):
    result, run = trained
    assert result.returncode == 0, result.stderr
    for name, reason in PROBLEMS.items():
        assert len(re.findall(f"{re.escape(name)}: .*{reason}", result.stderr)) == 1
    assert "6 files left out, 94 pictures remain" in result.stderr
    same = "the same picture in different classes: caché été/image 00.jpg = dots [red]x/copy.jpg"
    assert same in result.stderr
    assert "\x1b" not in result.stderr + result.stdout
    metrics = Run.open(run).metrics
    for name in ("accuracy", "loss", "balanced_accuracy", "macro_f1"):
        assert metrics[name]["low"] <= metrics[name]["value"] <= metrics[name]["high"]
    assert metrics["accuracy"]["value"] > 0.6
    assert metrics["num_test"] == len(Run.open(run).predictions["file"])
    assert len(Run.open(run).config["dataset"]["problems"]) == len(PROBLEMS)


@pytest.mark.slow
@pytest.mark.assets
def test_predict_answers_the_sound_and_names_the_bad(trained, messy, home):
    run = trained[1]
    result = safelight("transfer", "predict", run, messy, "nowhere.jpg", "--json", home=home)
    answers = json.loads(result.stdout)
    bad = {answer["file"] for answer in answers if "error" in answer}
    assert result.returncode == 1
    # A picture of one pixel is useless for training, but a question about it has an answer.
    assert len(bad) == len(PROBLEMS) - 1 + 1
    assert len(result.stderr.splitlines()) == len(bad)
    sums = [sum(a["probabilities"].values()) for a in answers if "error" not in a]
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    names = ["--", "-dash.png", "new\nline [bold]b.png"]
    result = safelight("transfer", "predict", run, *names, home=home, cwd=messy / "plain")
    assert result.returncode == 0, result.stderr
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == [
        "-dash.png", "new\\nline [bold]b.png",
    ]  # fmt: skip
    result = safelight("transfer", "predict", run, "nowhere.jpg", home=home)
    check_sentence(result.returncode, result.stderr.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.assets
def test_evaluate_judges_unseen_pictures_only(trained, messy, home, tmp_path, pictures):
    run = Run.open(trained[1])
    result = safelight("transfer", "evaluate", run.path, messy, "--json", home=home)
    judged = json.loads(result.stdout)
    assert result.returncode == 0, result.stderr
    assert judged["num_test"] == run.metrics["num_test"]
    assert judged["accuracy"] == run.metrics["accuracy"]
    assert judged["num_left_out"] + judged["num_test"] == 94
    others = fill(tmp_path / "others", num_images=4, names=("plain", "caché été"))
    check = safelight("transfer", "evaluate", run.path, others, home=home)
    check_sentence(check.returncode, check.stderr)
    seen = shutil.copytree(messy, tmp_path / "seen", ignore=_leave_out(run, messy))
    check = safelight("transfer", "evaluate", run.path, seen, home=home)
    assert check.returncode == 2
    assert check.stderr.splitlines()[-1].startswith("safelight: all ")


def _leave_out(run, root):
    """An ignore function for copytree: everything that the run was tested on, and what is bad."""
    gone = {root / name for name in run.predictions["file"]} | {root / name for name in PROBLEMS}
    return lambda folder, names: [name for name in names if Path(folder) / name in gone]


@pytest.mark.slow
@pytest.mark.assets
def test_a_typing_mistake_with_overwrite_leaves_the_older_run(trained, pictures, home, tmp_path):
    run = shutil.copytree(trained[1], tmp_path / "run")
    for wrong, expected in [
        (["--unfreeze-from", "blok5_conv1"], "block5_conv1"),
        (["--head-layers", "block9/avg"], "block"),
        (["--image-size", 5], "at least 32"),
        (["--unfreeze-from", "auto", "--validation-fraction", 0], "validation part is empty"),
        (["--head", "dense", "--validation-fraction", 0], "validation part is empty"),
        (["--engine", "ncnn", "--precision", "bfloat16"], "float32"),
    ]:
        common = ("transfer", "train", pictures, "--output", run, "--overwrite")
        result = safelight(*common, *wrong, home=home)
        last = result.stderr.splitlines()[-1]
        check_sentence(result.returncode, last)
        assert expected in last
        assert Run.open(run).finished
    (run / "model.keras").write_bytes(b"garbage")
    result = safelight("transfer", "predict", run, pictures, home=home)
    check_sentence(result.returncode, result.stderr)
    assert "damaged" in result.stderr


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"KERAS_BACKEND": "nonsense"}, "KERAS_BACKEND"),
        ({"SAFELIGHT_CACHE_LIMIT": "nonsense"}, "SAFELIGHT_CACHE_LIMIT"),
        ({"SAFELIGHT_CACHE_LIMIT": "0.00001"}, "SAFELIGHT_CACHE_LIMIT"),
        ({"SAFELIGHT_HOME": "/dev/null"}, "SAFELIGHT_HOME"),
        ({"SAFELIGHT_HOME": "/nowhere/at/all", "SAFELIGHT_OFFLINE": "1"}, "SAFELIGHT_"),
    ],
)
def test_a_wrong_environment_is_a_sentence(
    call, pictures, home, tmp_path, monkeypatch, environment, expected
):
    for name, value in {"SAFELIGHT_HOME": str(home), **environment}.items():
        monkeypatch.setenv(name, value)
    arguments = ("transfer", "train", pictures, "--output", tmp_path / "r", "--image-size", 32)
    if "KERAS_BACKEND" in environment:  # which is read once, when Keras is loaded
        result = safelight(*arguments, "--epochs", 1)
        code, said = result.returncode, result.stderr
    else:
        code, _, said = call(*arguments, "--epochs", 1, early=False)
    check_sentence(code, said)
    assert expected in said


def on_terminal(*arguments, home, interrupt=None):
    """Run on a terminal of 80 columns; press Ctrl-C once when the screen shows a pattern."""
    child, terminal = pty.fork()
    if child == 0:
        # Who runs the tests in the background may have Ctrl-C ignored, and that is inherited.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.environ.update(SAFELIGHT_HOME=str(home), COLUMNS="80", TERM="xterm")
        os.execv(sys.executable, [sys.executable, "-m", "safelight", *map(str, arguments)])
    screen, pressed = b"", False
    while True:
        try:
            data = os.read(terminal, 65536)
        except OSError:
            break
        screen += data
        if interrupt and not pressed and re.search(interrupt, screen):
            os.kill(child, signal.SIGINT)
            pressed = True
    os.close(terminal)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode()).replace("\r", "\n")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_ctrl_c_in_fine_tuning_keeps_the_best_weights(pictures, home, tmp_path):
    run, long = tmp_path / "run", ("--image-size", 32, "--epochs", 3000, "--patience", 3000)
    long += ("--unfreeze-from", "auto")
    code, screen = on_terminal(
        "transfer", "train", pictures, "--output", run, *long, home=home,
        interrupt=rb"fine-tuning[^\r\n]*acc",
    )  # fmt: skip
    assert code == 130, screen
    assert "interrupted" in screen
    assert Run.open(run).metrics["protocol"]["interrupted"] is True
    bars = [line for line in screen.splitlines() if "━" in line]
    assert any("images/s" in line for line in bars)
    assert max(map(len, bars)) <= 80
    answer = safelight("transfer", "predict", run, pictures, home=home)
    assert answer.returncode == 0


@pytest.mark.slow
@pytest.mark.assets
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_ctrl_c_in_extraction_is_a_sentence_and_the_command_goes_on(pictures, home, tmp_path):
    command = ("transfer", "train", pictures, "--output", tmp_path / "run", "--image-size", 96)
    code, screen = on_terminal(
        *command, "--views", 16, "--zoom", 0.1, home=home, interrupt=rb"extracting"
    )
    assert code == 130, screen
    assert "Traceback" not in screen
    assert "safelight: stopped" in screen
    result = safelight(*command, "--views", 2, "--zoom", 0.1, home=home)
    assert result.returncode == 0, result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such pipes")
def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    # More than a pipe holds, so that the program meets its end.
    run = make_run(tmp_path / "run", long=list(range(100_000)))
    command = f"{sys.executable} -m safelight runs show {run.path} --json"
    shell = f"set -o pipefail; {command} | head -c 10 > {os.devnull}"
    result = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
