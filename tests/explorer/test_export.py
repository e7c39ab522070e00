"""The exported folder: what is in it, when it is refused, and that it is whole or not there."""

import base64
import gzip
import io
import json
import re

import keras
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from safelight import datasets, explorer
from safelight.explorer import folders, notebook, packing, points, subjects
from safelight.gan import experiment as games
from safelight.gan.models import GAN
from safelight.gan.networks import build_discriminator
from safelight.generative import records
from safelight.runs import Run
from safelight.vae import experiment

KINDS = {
    "dense": {},
    "conv": {"architecture": "conv", "hidden_units": (4, 6)},
    "conditional": {"conditional": True},
    "two layers": {"second_latent_dim": 2},
    "bottom up": {"second_latent_dim": 2, "inference": "bottom_up", "prior": "mixture"},
    "flow": {"prior": "flow"},
    "vamp": {"prior": "vamp", "prior_components": 5},
    "two units": {"latent_dim": 2},
    "one unit": {"latent_dim": 1},
    "static": {"binarization": "static"},
}


def read(folder):
    """What a browser finds in an export: its data, arrays unpacked."""
    text = (folder / "data.js").read_text("utf-8")
    data = json.loads(re.fullmatch(r"self\.explorerFiles = .*? \{\}, (.*)\);\n", text, re.S)[1])
    return data["data"]


def array(packed):
    values = np.frombuffer(gzip.decompress(base64.b64decode(packed["data"])), packed["type"])
    return values.reshape(packed["shape"])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_decodes_in_its_page_as_in_keras(kind, make_run, runtime, tmp_path):
    run = make_run(**KINDS[kind])
    model = experiment.load_vae(run)
    folder = explorer.export_web(run.path, tmp_path / "page").parent
    data = read(folder)
    means, labels = array(data["points"]["means"]), array(data["points"]["labels"])
    told = labels.astype("int64") if model.num_classes else None
    session = onnxruntime.InferenceSession(folder / "decoder.onnx")
    feeds = {"z": means}
    if told is not None:
        feeds["labels"] = np.eye(3, dtype="float32")[told]
    hidden = np.zeros((len(means), model.latent_dim - model.visible_dim), "float32")
    expected = model.decode(np.concatenate([means, hidden], axis=1), told)
    np.testing.assert_allclose(session.run(None, feeds)[0], expected, atol=1e-5)
    assert means.shape == (len(means), model.visible_dim)
    assert sorted(data["order"]) == list(range(model.visible_dim))
    assert (data["draws"] is None) == (data["prior"] == "StandardNormal")


GAMES = {
    "gan": {},
    "resnet": {"architecture": "resnet"},
    "conditional": {"conditional": True},
    "VAE/GAN": {"autoencoder": True},
}


@pytest.mark.parametrize("kind", GAMES)
def test_every_game_draws_in_its_page_as_in_keras(kind, make_game, runtime, tmp_path):
    run = make_game(**GAMES[kind])
    model = games.load_gan(run)
    folder = explorer.export_web(run.path, tmp_path / "page", num_points=9).parent
    data = read(folder)
    z = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
    labels = np.arange(6) % 3
    feeds = {"z": z}
    if model.num_classes:
        feeds["labels"] = np.eye(3, dtype="float32")[labels]
    found = onnxruntime.InferenceSession(folder / "decoder.onnx").run(None, feeds)[0]
    expected = model.decode_all(z, labels if model.num_classes else None)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (data["kl"], data["likelihood"], data["draws"]) == (None, None, None)
    assert data["order"] == sorted(range(4), key=lambda unit: -data["change"][unit])
    low, rest, high = array(data["ranges"])[:, 0]
    assert (low + high, rest) == (pytest.approx(0), 0)
    if model.encoder is None:
        assert data["points"] is None
        return
    source = datasets.from_directory(run.config["dataset"]["source"])
    part = records.find_part(run, source, "train")
    means, _ = model.encode(np.stack([part.read(i) for i in range(len(part))]))
    for mean in array(data["points"]["means"]):
        assert np.abs(means - mean).max(axis=1).min() < 1e-5


@pytest.mark.parametrize("latent_dim", [1, 70])
def test_games_of_few_and_of_many_units(make_game, runtime, tmp_path, latent_dim):
    """More units than are moved at a time; each is what it is alone."""
    run = make_game(latent_dim=latent_dim)
    data = read(explorer.export_web(run.path, tmp_path / "page").parent)
    model, last = games.load_gan(run), latent_dim - 1
    z = np.random.default_rng(0).standard_normal((16, latent_dim), "float32")
    step = np.zeros(latent_dim, "float32")
    step[last] = 0.5
    moved = np.abs(model.decode_all(z + step) - model.decode_all(z - step)).mean()
    assert data["change"][last] == pytest.approx(255 * moved, rel=1e-4)
    assert len(data["change"]) == latent_dim


def test_a_generator_that_draws_no_numbers_is_told(make_game, runtime, tmp_path):
    run = make_game()
    model = games.load_gan(run)
    model.generator.set_weights([np.nan * w for w in model.generator.get_weights()])
    model.save(run.model_path)
    with pytest.raises(ValueError, match=r"model\.keras: draws something else than numbers"):
        explorer.export_web(run.path, tmp_path / "page")


def test_a_classifier_is_refused_before_anything_is_fetched(tmp_path, monkeypatch):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "transfer"})
    monkeypatch.setattr("safelight.assets.fetch", lambda *_, **__: pytest.fail("fetched"))
    with pytest.raises(ValueError, match="expected one that `vae train` or `gan train` made"):
        explorer.export_web(run.path, tmp_path / "page")


def test_what_a_unit_changes_is_what_a_linear_generator_says():
    """Pictures of .5 + z W: a step of a unit moves each pixel by its weight."""
    z = keras.Input((3,))
    pixels = keras.layers.Dense(8, bias_initializer=keras.initializers.Constant(0.5))(z)
    generator = keras.Model(z, keras.layers.Reshape((2, 4, 1))(pixels))
    weights = np.random.default_rng(0).normal(0, 0.1, (3, 8))
    generator.layers[1].kernel.assign(weights)
    model = GAN(generator, build_discriminator((2, 4, 1), filters=(2,)))
    found = subjects.find_change(model, seed=0)
    np.testing.assert_allclose(found, 255 * np.abs(weights).mean(axis=1), rtol=1e-4)


def test_its_points_are_what_the_encoder_makes_of_training_pictures(run, runtime, tmp_path):
    folder = explorer.export_web(run.path, tmp_path / "page", num_points=7).parent
    packed = read(folder)["points"]
    source = datasets.from_directory(run.config["dataset"]["source"])
    part = records.find_part(run, source, "train")
    images = np.stack([part.read(i) for i in range(len(part))])
    means, _ = experiment.load_vae(run).encode(images)
    tile = packed["thumbnails"]
    sheet = Image.open(io.BytesIO(base64.b64decode(tile["data"].partition(",")[2])))
    assert (tile["width"], tile["height"]) == (28, 18)
    assert packed["means"]["shape"] == [7, 5]
    for i, mean in enumerate(array(packed["means"])):
        place = np.abs(means - mean).max(axis=1).argmin()
        np.testing.assert_allclose(mean, means[place], atol=1e-5)
        assert array(packed["labels"])[i] == part.labels[place]
        left, top = i % tile["columns"] * 28, i // tile["columns"] * 18
        shown = np.asarray(sheet.crop((left, top, left + 28, top + 18)))
        np.testing.assert_array_equal(shown, images[place])


def test_without_pictures_none_is_in_it(run, runtime, tmp_path):
    data = read(explorer.export_web(run.path, tmp_path / "page", num_points=0).parent)
    assert data["points"] is None
    assert len(data["kl"]) == 5


def test_nats_are_those_of_the_run_where_it_was_judged(make_run, runtime, tmp_path):
    run = make_run()
    run.write_metrics({"kl_per_unit": [1.0, 3.0, 0.5, 0.0, 2.0]})
    data = read(explorer.export_web(run.path, tmp_path / "page").parent)
    assert data["kl"] == [1.0, 3.0, 0.5, 0.0, 2.0]
    assert data["order"] == [1, 4, 0, 2, 3]


def test_no_name_ends_a_script(run, runtime, tmp_path):
    folder = explorer.export_web(run.path, tmp_path / "page").parent
    assert packing.script({"a": "</script><!--"}).count("</script") == 0
    whole = notebook.inline(folder)
    assert whole.count("</script>") == 3
    assert "src=" not in whole
    assert 'href="explorer.css"' not in whole


def test_the_decoder_is_there_twice_only_where_the_folder_stays_small(
    run, runtime, tmp_path, monkeypatch
):
    pages = [explorer.export_web(run.path, tmp_path / "small")]
    monkeypatch.setattr("safelight.explorer.export.MAX_BYTES", 1000)
    pages.append(explorer.export_web(run.path, tmp_path / "large"))
    copies = [(page.parent / "decoder.js").read_text() for page in pages]
    assert "decoder.onnx" in copies[0].split("{}")[1]
    assert copies[1].startswith("//")


def test_an_export_is_replaced_only_if_asked_to(run, runtime, tmp_path):
    folder = tmp_path / "page"
    explorer.export_web(run.path, folder)
    with pytest.raises(ValueError, match="holds an export"):
        explorer.export_web(run.path, folder)
    (folder / "data.js").write_text("stale")
    explorer.export_web(run.path, folder, num_points=0, overwrite=True)
    assert read(folder)["points"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "runtime"]


@pytest.mark.parametrize("mark", [True, False])
def test_a_folder_of_something_else_is_never_replaced(run, runtime, tmp_path, mark):
    folder = tmp_path / "page"
    if mark:
        explorer.export_web(run.path, folder)
    folder.mkdir(exist_ok=True)
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.tex, which no export wrote"):
        explorer.export_web(run.path, folder, overwrite=True)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_what_fails_half_way_leaves_the_folder_as_it_was(run, runtime, tmp_path):
    folder = tmp_path / "page"
    explorer.export_web(run.path, folder)
    before = (folder / "data.js").read_bytes()
    (runtime / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(FileNotFoundError):
        explorer.export_web(run.path, folder, num_points=0, overwrite=True)
    assert (folder / "data.js").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "runtime"]


def test_targets_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        folders.check_target(tmp_path / "file")
    with pytest.raises(ValueError, match="there is no folder"):
        folders.check_target(tmp_path / "a" / "b")


def test_pictures_that_are_gone_are_told(make_run, runtime, tmp_path):
    run = make_run()
    path = run.path / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config["dataset"]["source"] = "../nowhere"
    path.write_text(json.dumps(config), "utf-8")
    with pytest.raises(ValueError, match=r"are not where .* num_points=0"):
        explorer.export_web(run.path, tmp_path / "page")
    assert not (tmp_path / "page").exists()


def test_large_thumbnails_shrink_and_lose_little():
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 255, 200)[None, :, None] * np.ones((100, 1, 3))
    images = np.stack([smooth + rng.normal(0, 2, smooth.shape)] * 3).clip(0, 255).astype("uint8")
    packed = packing.thumbnails(images)
    assert (packed["width"], packed["height"]) == (64, 32)
    sheet = Image.open(io.BytesIO(base64.b64decode(packed["data"].partition(",")[2])))
    ramp = np.asarray(sheet)[:32, :64].mean(axis=(0, 2))
    np.testing.assert_allclose(ramp, np.linspace(0, 255, 64), atol=3)


# --- what the plane can have as axes


def shown(means, labels=None):
    images = np.zeros((len(means), 2, 2, 1), "uint8")
    return points.Points(images, means.astype("float32"), labels, np.zeros(means.shape[1]))


def test_principal_axes_are_orthonormal_and_hold_most_variance():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(200, 4)) * [1, 5, 2, 0.5] + 3
    found = points.find_directions(shown(means))
    axes = np.stack([direction.axis for direction in found])
    np.testing.assert_allclose(axes @ axes.T, np.eye(2), atol=1e-12)
    values, vectors = np.linalg.eigh(np.cov(means.T))
    np.testing.assert_allclose(np.abs(np.sum(axes * vectors.T[:-3:-1], axis=1)), 1, atol=1e-6)
    assert found[0].name == f"principal axis 1 ({100 * values[-1] / values.sum():.0f} %)"


def test_class_axes_see_what_separates_classes_and_not_what_varies_within():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 50)
    means = rng.normal(0, 0.1, (150, 4))
    means[:, 0] += rng.normal(0, 9, 150).reshape(3, 50).T.ravel()  # large, and the same in all
    means[:, 0] -= np.repeat(means[:, 0].reshape(3, 50).mean(axis=1), 50)
    means[:, 2] += 2 * labels
    names = [direction.name for direction in points.find_directions(shown(means, labels))]
    axis = points.find_directions(shown(means, labels))[0].axis
    assert [name.partition(" (")[0] for name in names] == [
        "class axis 1", "class axis 2", "principal axis 1", "principal axis 2",
    ]  # fmt: skip
    assert axis[2] > 0.99
    told = points.find_directions(shown(means, labels), conditional=True)
    assert [direction.name.partition(" (")[0] for direction in told] == [
        "principal axis 1", "principal axis 2",
    ]  # fmt: skip


@pytest.mark.parametrize("num_units", [1, 2])
def test_one_or_two_units_need_no_other_axes(num_units):
    assert points.find_directions(shown(np.zeros((5, num_units)))) == []
