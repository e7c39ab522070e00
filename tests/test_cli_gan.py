"""`safelight gan` and `safelight compare` as a newcomer meets them."""

import json

import numpy as np
import pytest
from PIL import Image

from safelight import scoring
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
        run, told = folder / "game", folder / "told"
        assert leave("gan", "train", photos, "--output", run, *SMALL) == 0
        assert leave("gan", "train", photos, "--output", told, "--conditional", *SMALL) == 0
    return run, told


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
    run, told = trained
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
    assert json.loads(out)["protocol"]["features"] == "some pixels"
    code, out, _ = call("compare", *trained, "--json", "--output", tmp_path / "both.png")
    assert code == 0
    names = [row["name"] for row in json.loads(out)["rows"]]
    assert names == ["real pictures", "game", "told"]
    assert (tmp_path / "both.png").is_file()
    code, out, _ = call("compare", trained[0])
    assert code == 0
    assert "some pixels" in out


def test_a_report_can_be_written(trained, call, tmp_path):
    assert call("report", trained[0], "--output", tmp_path / "page.html")[0] == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "game" in page


@pytest.mark.parametrize(
    "words",
    [
        ("gan", "sample", "{run}", "--label", "plain"),
        ("gan", "sample", "{told}", "--label", "nobody"),
        ("gan", "sample", "{run}", "--output", "a.jpg"),
        ("gan", "sample", "{run}", "--temperature", "nan"),
        ("gan", "interpolate", "{run}", "--output", "nowhere/a.png"),
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
    names = {"run": trained[0], "told": trained[1], "data": photos}
    code, _, err = call(*(word.format(**names) for word in words))
    check_sentence(code, err)
