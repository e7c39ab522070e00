"""`predict --explain`: a picture of where each answer comes from, and nobody's file replaced."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from safelight.cli.explain import name_pictures, say_agreement, write_explanations
from safelight.runs import Run


def save_picture(path, seed=0, *, tint=(0, 0, 0)):
    """Noise, with more of some colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
    pixels = np.minimum(noise + np.array(tint), 255).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


# --- names


def test_every_picture_gets_a_name_of_its_own(tmp_path):
    long = "ü" * 120
    files = [tmp_path / "a" / "x.png", tmp_path / "b" / "X.jpg", tmp_path / f"{long}.png"]
    targets = name_pictures(tmp_path / "deep" / "why", files, overwrite=False)
    assert [target.name for target in targets[:2]] == ["x-explained.png", "X-explained-2.png"]
    assert len(set(targets)) == 3
    assert (tmp_path / "deep" / "why").is_dir()
    for target in targets:
        save_picture(target.with_name(f".{target.stem}.{'0' * 32}.partial.png"))  # as save_figure


def test_no_file_is_replaced_unless_told_to(tmp_path):
    file, kept = save_picture(tmp_path / "x.png"), tmp_path / "x-explained.png"
    kept.write_text("mine")
    with pytest.raises(ValueError, match=r"holds x-explained\.png already.*--overwrite"):
        name_pictures(tmp_path, [file], overwrite=False)
    assert name_pictures(tmp_path, [file], overwrite=True) == [kept]
    with pytest.raises(ValueError, match="one of the pictures to be explained"):
        name_pictures(tmp_path, [file, kept], overwrite=True)
    with pytest.raises(ValueError, match="is a file"):
        name_pictures(kept, [file], overwrite=True)
    assert kept.read_text() == "mine"


def test_agreement_is_said_with_its_sign():
    assert say_agreement(0.714) == "+0.71 of 1"
    assert say_agreement(-0.2) == "-0.20 of 1"
    assert say_agreement(None) == "nothing to rank"


# --- pictures


@pytest.fixture
def model():
    """Class `red` is what is red and not green, pixel by pixel."""
    import keras

    from safelight.transfer import backbones, models
    from safelight.transfer.features import FeatureLayer

    images = keras.Input((None, None, 3), dtype="uint8")
    x = backbones.ImageResizing(16, 16, name="resizing")(images)
    x = keras.layers.Conv2D(1, 1, name="paint", use_bias=False)(x)
    network = keras.Model(images, x, name="painter")
    network.get_layer("paint").set_weights([np.array([[[[1.0], [-1], [0]]]]) / 255])
    built = models.build_classifier(network, [FeatureLayer("paint", "avg")], 2)
    weights = np.array([[0.0, 9.0]]), np.zeros(2)
    models.set_linear_head(built, np.zeros(1), np.ones(1), *weights)
    return built


def test_answers_get_a_picture_and_an_agreement(model, tmp_path):
    """Class 1 is a sum over pixels, so map and covering rank the patches alike."""
    files = [save_picture(tmp_path / f"{seed}.png", seed) for seed in range(2)]
    answers = [
        {"file": str(file), "prediction": said, "probabilities": {"other": 0.4, "red": 0.6}}
        for file, said in zip(files, ["red", None], strict=True)
    ]
    targets = name_pictures(tmp_path / "why", files, overwrite=False)
    told = []
    write_explanations(model, None, answers, targets, lambda *each: told.append(each), check=True)
    for answer, target in zip(answers, targets, strict=True):
        assert answer["explanation"] == str(target)
        assert answer["agreement"] == pytest.approx(1, abs=0.02)  # but for resized corners
        with Image.open(target) as drawn:
            assert drawn.width > drawn.height
    assert told[-1] == ("explaining", 2, 2, "")
    assert set((tmp_path / "why").iterdir()) == set(targets)  # and nothing half-written


@pytest.mark.slow
def test_predict_explains(model, tmp_path):
    from safelight.transfer.config import TrainConfig

    run = Run.create(tmp_path / "run")
    settings = dataclasses.asdict(TrainConfig(image_size=16))
    names = {"name": "d", "class_names": ["other", "red"]}
    run.write_config({"kind": "transfer", "dataset": names, "settings": settings})
    model.save(run.model_path)
    save_picture(tmp_path / "in" / "a.png", tint=(100, 0, 0))
    (tmp_path / "in" / "b.png").write_text("no picture")
    save_picture(tmp_path / "in" / "c.png", tint=(0, 100, 0))

    def predict(*arguments):
        command = [sys.executable, "-m", "safelight", "transfer", "predict", run.path]
        command += [tmp_path / "in", *arguments]
        return subprocess.run(
            list(map(str, command)), capture_output=True, text=True, check=False, cwd=tmp_path
        )

    for wrong in ("--check", "--overwrite"):
        result = predict(wrong)
        assert result.returncode == 2
        assert "expected --explain DIR" in result.stderr
    result = predict("--explain", tmp_path / "why", "--check", "--json")
    assert result.returncode == 1, result.stderr  # one of three cannot be read
    red, bad, green = json.loads(result.stdout)
    assert (red["prediction"], green["prediction"]) == ("red", "other")
    assert red["explanation"] == str(tmp_path / "why" / "a-explained.png")
    assert red["agreement"] == pytest.approx(1, abs=0.02)  # a sum over pixels, as above
    assert green["agreement"] is None  # nothing in the picture changes the logit of the other class
    assert "error" in bad
    assert "explanation" not in bad
    again = predict("--explain", tmp_path / "why")
    assert again.returncode == 2
    assert "--overwrite" in again.stderr
    replaced = predict("--explain", tmp_path / "why", "--overwrite")
    assert replaced.stdout.splitlines()[-1].split() == ["explanations", str(tmp_path / "why")]
