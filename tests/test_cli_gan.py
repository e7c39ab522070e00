"""`safelight gan` and `safelight compare` as a newcomer meets them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from safelight import scoring
from safelight.cli.runs import say_distance
from safelight.generative.scores import Features

SMALL = ("--epochs", 1, "--latent-dim", 3, "--filters", 4, "--batch-size", 16)


def pixels(images):
    images = np.asarray(images)
    rows = images / 255 if images.dtype == np.uint8 else images
    return rows.reshape(len(rows), -1)[:, ::64].astype("float64")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Colour pictures in two classes, one with an odd name."""
    root = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for name in ("caché été", "plain"):
        (root / name).mkdir(parents=True)
        for number in range(60):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3)).astype(np.uint8))
            coarse.resize((24, 16), Image.Resampling.BICUBIC).save(root / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def trained(photos, leave, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        features = Features(pixels, "some pixels")
        patch.setattr(scoring, "choose_features", lambda *_, **__: features)
        run, told, both = folder / "game", folder / "told", folder / "both"
        assert leave("gan", "train", photos, "--output", run, *SMALL) == 0
        assert leave("gan", "train", photos, "--output", told, "--conditional", *SMALL) == 0
        assert leave("gan", "train", photos, "--output", both, "--autoencoder", *SMALL) == 0
    return run, told, both


@pytest.fixture(autouse=True)
def _by_pixels(monkeypatch):
    features = Features(pixels, "some pixels")
    monkeypatch.setattr(scoring, "choose_features", lambda *_, **__: features)


def check_sentence(code, err):
    assert code == 2, err
    assert "Traceback" not in err
    assert err.startswith(("safelight: ", "Usage: safelight "))


def test_a_training_says_what_came_out(trained, call):
    code, out, _ = call("runs", "show", trained[0])
    assert code == 0
    for word in ("Frechet distance", "precision", "copies", "diversity", "judged by", "samples"):
        assert word in out


def test_pictures_are_drawn_into_a_file_or_a_folder(trained, call, tmp_path):
    run, told, _ = trained
    assert call("gan", "sample", run, "--output", tmp_path / "some.png")[0] == 0
    with Image.open(tmp_path / "some.png") as picture:
        assert picture.size[0] > 100
    assert call("gan", "sample", run, "--num", 3, "--output", tmp_path / "folder")[0] == 0
    assert len(list((tmp_path / "folder").iterdir())) == 3
    with Image.open(next((tmp_path / "folder").iterdir())) as picture:
        assert picture.size == (24, 16)
    options = ("--label", "plain", "--output", tmp_path / "plain.png")
    assert call("gan", "sample", told, *options)[0] == 0
    assert call("gan", "interpolate", told, "--output", tmp_path / "way.png")[0] == 0


def test_a_run_is_judged_and_compared(trained, call, tmp_path):
    code, out, _ = call("gan", "evaluate", trained[0], "--json")
    assert code == 0
    found = json.loads(out)
    assert found["protocol"]["features"] == "some pixels"
    assert found["real_pictures"]["frechet"]["value"] < found["score"]["frechet"]["value"]
    code, out, _ = call("compare", *trained, "--json", "--output", tmp_path / "both.png")
    assert code == 0
    names = [row["name"] for row in json.loads(out)["rows"]]
    assert names == ["real pictures", "game", "told", "both"]
    assert (tmp_path / "both.png").is_file()
    code, out, _ = call("compare", trained[0])
    assert code == 0
    assert "some pixels" in out


def test_a_vae_gan_reconstructs_and_walks_between_pictures(trained, photos, call, tmp_path):
    both, images = trained[2], [photos / "plain" / f"{number}.png" for number in (1, 2)]
    (tmp_path / "odd.png").write_text("no picture", encoding="utf-8")
    path = tmp_path / "again.png"
    words = ("gan", "reconstruct", both, *images, tmp_path / "odd.png", "--output", path)
    code, out, err = call(*words, "--json")
    assert code == 1
    assert "odd.png" in err
    answers = json.loads(out)
    assert [0 < each["reconstruction_error"] < 1 for each in answers[:2]] == [True, True]
    assert "error" in answers[2]
    with Image.open(path) as picture:
        assert picture.size[0] > 100
    assert call("gan", "interpolate", both, *images, "--output", tmp_path / "way.png")[0] == 0
    assert (tmp_path / "way.png").is_file()


def test_a_run_whose_pictures_were_moved_is_judged_where_they_are(trained, photos, call, tmp_path):
    moved = tmp_path / "far" / "away" / "run"  # from where no relative path leads to the pictures
    shutil.copytree(trained[0], moved)
    code, _, err = call("gan", "evaluate", moved)
    check_sentence(code, err)
    assert "gan evaluate RUN --data DATA" in " ".join(err.split())
    assert call("gan", "evaluate", moved, "--data", photos)[0] == 0


@pytest.mark.parametrize("split", [None, {}, {"digests": {"test": [["a"]]}}])
def test_a_damaged_run_is_named_among_others(trained, photos, call, tmp_path, split):
    broken = tmp_path / "broken"
    shutil.copytree(trained[0], broken)
    config = json.loads((broken / "config.json").read_text(encoding="utf-8"))
    config["split"] = split
    (broken / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code, _, err = call("compare", trained[0], broken, "--data", photos)
    check_sentence(code, err)
    assert "broken: config.json is damaged" in " ".join(err.split())


def test_a_report_can_be_written(trained, call, tmp_path):
    assert call("report", trained[0], "--output", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "game" in page


def test_a_small_distance_has_digits_that_differ():
    small = {"value": 0.0319, "low": 0.0267, "high": 0.0371}
    assert say_distance(small) == "0.0319 [0.0267, 0.0371]"
    assert say_distance({"value": 9.086, "low": 8.404, "high": 9.767}) == "9.09 [8.40, 9.77]"
    assert say_distance({"value": 0.1, "low": None, "high": None}) == "0.1000 [?, ?]"


@pytest.mark.parametrize(
    "words",
    [
        ("gan", "sample", "{run}", "--label", "plain"),
        ("gan", "sample", "{told}", "--label", "nobody"),
        ("gan", "sample", "{run}", "--output", "a.jpg"),
        ("gan", "sample", "{run}", "--temperature", "nan"),
        ("gan", "interpolate", "{run}", "--output", "nowhere/a.png"),
        ("gan", "interpolate", "{run}", "a.png", "b.png"),
        ("gan", "interpolate", "{both}", "a.png"),
        ("gan", "interpolate", "{both}", "a.png", "b.png", "--seed", "3"),
        ("gan", "interpolate", "{both}", "a.png", "b.png"),
        ("gan", "reconstruct", "{run}", "a.png"),
        ("gan", "reconstruct", "{both}", "a.png"),
        ("gan", "sample", "{data}"),
        ("vae", "sample", "{run}"),
        ("compare", "{data}"),
        ("gan", "train", "{data}", "--output", "{run}"),
        ("gan", "train", "{data}", "--output", "new", "--loss", "mine"),
        ("gan", "train", "{data}", "--output", "new", "--autoencoder", "--conditional"),
    ],
)
def test_mistakes_are_one_sentence(trained, photos, call, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"run": trained[0], "told": trained[1], "both": trained[2], "data": photos}
    code, _, err = call(*(word.format(**names) for word in words))
    # A picture that is not there has a line of its own before.
    check_sentence(code, err[err.index("safelight: ") :] if "no such file" in err else err)
