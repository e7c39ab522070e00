"""From data to a run folder, and back; and runs of several kinds, scored by one protocol."""

import dataclasses
import re

import numpy as np
import pytest
from PIL import Image

from safelight import datasets, scoring
from safelight.gan import album, experiment
from safelight.gan.config import check_data
from safelight.gan.models import GAN
from safelight.generative import pictures
from safelight.generative.scores import Features
from safelight.runs import Run

NUM = 200


def silent(*_):
    pass


def pixels(images):
    """Features for which no network has to be trained."""
    images = np.asarray(images)
    rows = images / 255 if images.dtype == np.uint8 else images
    return rows.reshape(len(rows), -1)[:, ::4].astype("float64")


FEATURES = Features(pixels, "every fourth pixel")


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (NUM, 3, 2)).astype(np.uint8)
    images = np.stack([np.asarray(Image.fromarray(c).resize((8, 9), 2)) for c in coarse])
    return datasets.ImageDataset.from_arrays(
        images[..., None],
        np.arange(NUM) % 2,
        class_names=["a", "b"],
        name="clouds",
        near_duplicates=False,
    )


@pytest.fixture(scope="module")
def parts(dataset):
    return pictures.load_parts(dataset, pictures.split(dataset, seed=0))


def run_into(path, parts, config, features=FEATURES, **options):
    run = experiment.open_run(path, parts, config, **options)
    return run, experiment.run_training(run, parts, config, features=features, report=silent)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.one_backend),
        pytest.param({"conditional": True}, marks=pytest.mark.one_backend),
        {"autoencoder": True},
    ],
)
def test_a_run_holds_model_numbers_and_pictures(config, parts, options, tmp_path):
    config = dataclasses.replace(config, epochs=2, **options)
    run, metrics = run_into(tmp_path / "run", parts, config)
    assert Run.open(run.path).finished
    names = {path.stem for path in (run.path / "pictures").iterdir()}
    assert {"history", "samples", "interpolations"} <= names
    assert ("reconstructions" in names) == bool(options.get("autoencoder"))
    assert metrics["saved_model"]["max_difference"] < 1e-5
    assert metrics["score"]["num_real"] == len(parts.images["test"])
    assert metrics["protocol"]["features"] == "every fourth pixel"
    assert metrics["protocol"]["augmentation"] == "all"
    assert not (run.path / "checkpoint.npz").exists()
    assert experiment.settings_of(run) == config
    model = experiment.load_gan(run)
    assert model.generate(2).shape == (2, 9, 8, 1)


@pytest.mark.one_backend
def test_a_finished_run_is_not_overwritten_and_another_is_not_continued(config, parts, tmp_path):
    config = dataclasses.replace(config, epochs=1)
    run, _ = run_into(tmp_path / "run", parts, config)
    other = dataclasses.replace(config, seed=5)
    with pytest.raises(ValueError, match="overwrite"):
        experiment.open_run(run.path, parts, other)
    assert run.finished
    again = experiment.open_run(run.path, parts, other, overwrite=True)
    assert not again.finished
    assert experiment.settings_of(again) == other


def test_labels_are_needed_where_they_are_told(config, dataset, parts):
    bare = dataclasses.replace(dataset, class_names=())
    with pytest.raises(ValueError, match="has no classes"):
        check_data(dataclasses.replace(config, conditional=True), bare, parts.splits)
    check_data(config, bare, parts.splits)


@pytest.mark.parametrize("num", [30, 77])
def test_too_few_pictures_to_judge_by_are_refused_with_what_would_do(config, dataset, num):
    few = dataset.subset(range(num))
    with pytest.raises(ValueError, match="expected at least 20 of each") as refused:
        check_data(config, few, pictures.split(few, seed=0))
    said = re.search(r"--test-fraction ([.\d]+)", str(refused.value))
    if num == 30:
        assert "30 pictures are too few for that" in str(refused.value)
        return
    check_data(config, few, pictures.split(few, test_fraction=float(said[1]), seed=0))


@pytest.mark.one_backend
def test_all_classes_judge_and_are_judged_as_often_as_they_occur(config, tmp_path, monkeypatch):
    """The parts lie class after class, and one class is rare."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [160, 40])
    images = (rng.integers(0, 60, (NUM, 9, 8, 1)) + 120 * labels[:, None, None, None]).astype(
        "uint8"
    )
    clouds = datasets.ImageDataset.from_arrays(
        images, labels, class_names=["dark", "bright"], name="c", near_duplicates=False
    )
    dealt = pictures.load_parts(clouds, pictures.split(clouds, seed=0))
    seen = []

    def extract(rows):
        seen.append(np.asarray(rows))
        return pixels(rows)

    config = dataclasses.replace(config, epochs=1, conditional=True)
    run_into(tmp_path / "run", dealt, config, Features(extract, "pixels"))
    learned, real, drawn = seen[-3:]
    for rows in (learned, real):
        bright = rows.mean((1, 2, 3)) > 100
        assert 0 < bright.mean() < 0.5
        assert bright[: len(bright) // 2].any()
    assert len(drawn) == len(real)
    # A judged model is told the labels that such a draw gives, here and where runs are compared.
    told = []
    generate = GAN.generate

    def record(self, num, labels=None, **options):
        told.append(labels)
        return generate(self, num, labels, **options)

    monkeypatch.setattr(GAN, "generate", record)
    monkeypatch.setattr(scoring, "choose_features", lambda *_, **__: FEATURES)
    run, _ = run_into(tmp_path / "again", dealt, config, overwrite=True)
    given = [each for each in told if each is not None and len(each) == len(real)]
    scoring.compare([run], clouds, report=silent)
    given.append(told[-1])
    assert len(given) == 2
    for labels in given:
        assert 0 < labels.mean() < 0.4


def test_arcs_begin_and_end_at_their_ends_and_keep_lengths_and_pace():
    begin, end = np.random.default_rng(0).normal(size=(2, 5, 8))
    end *= (np.linalg.norm(begin, axis=1) / np.linalg.norm(end, axis=1))[:, None]
    way = album.arc(begin, end, 7)
    np.testing.assert_allclose(way[:, 0], begin, atol=1e-6)
    np.testing.assert_allclose(way[:, -1], end, atol=1e-6)
    lengths = np.linalg.norm(way, axis=-1)
    np.testing.assert_allclose(lengths, lengths[:, :1].repeat(7, 1), rtol=1e-5)
    ahead = way / lengths[..., None]
    paces = (ahead[:, 1:] * ahead[:, :-1]).sum(-1)  # cosines of the angles
    np.testing.assert_allclose(paces, paces[:, :1].repeat(6, 1), atol=1e-5)
    still = album.arc(begin, begin, 3)
    np.testing.assert_allclose(still, begin[:, None].repeat(3, 1), atol=1e-6)


@pytest.fixture(scope="module")
def runs(parts, tmp_path_factory):
    from safelight.gan.config import TrainConfig
    from safelight.vae import experiment as vae
    from safelight.vae.config import TrainConfig as VAEConfig

    folder = tmp_path_factory.mktemp("runs")
    small = TrainConfig(latent_dim=3, filters=(4, 6), epochs=2, batch_size=16)
    game, _ = run_into(folder / "game", parts, small)
    config = vae.resolve(VAEConfig(latent_dim=3, hidden_units=(8,), epochs=2), parts)
    run = vae.open_run(folder / "vae", parts, config)
    vae.run_training(run, parts, config, report=silent, num_importance_samples=5, num_scored=8)
    return [run, game]


@pytest.fixture
def by_pixels(monkeypatch):
    monkeypatch.setattr(scoring, "choose_features", lambda *_, **__: FEATURES)


@pytest.mark.one_backend
def test_runs_of_several_kinds_are_scored_alike(runs, dataset, by_pixels):
    rows, protocol = scoring.compare(runs, dataset, report=silent)
    assert [row.name for row in rows] == ["real pictures", "vae", "game"]
    assert rows[1].words.startswith("VAE, ")
    assert rows[2].words.startswith("GAN, dcgan")
    assert rows[1].likelihood is not None
    assert rows[2].likelihood is None
    assert rows[2].seconds > 0
    # Real pictures are nearest to real ones, and none of them is a copy of what it is drawn from.
    assert rows[0].score.frechet.value < min(row.score.frechet.value for row in rows[1:])
    assert protocol["num_real"] == protocol["num_fake"] == rows[1].score.num_fake
    again, _ = scoring.compare(runs, dataset, report=silent)
    assert [row.to_dict() for row in again] == [row.to_dict() for row in rows]


@pytest.mark.one_backend
def test_copies_are_sought_in_all_that_was_learned(runs, dataset, parts, by_pixels, monkeypatch):
    learned = parts.images["train"] / np.float32(255)
    monkeypatch.setattr(
        scoring.Generator, "draw", lambda self, num, *_: learned[np.arange(num) % len(learned)]
    )
    rows, _ = scoring.compare(runs[1:], dataset, report=silent)
    assert rows[1].score.copies.value == 1
    np.testing.assert_array_equal(rows[1].nearest, rows[1].samples)
    # Learned pictures themselves are sought among the others.
    assert rows[0].score.copies.low < 0.1


@pytest.mark.one_backend
def test_runs_of_other_seeds_are_compared_where_the_test_part_is_the_same(
    runs, dataset, parts, config, by_pixels, tmp_path
):
    """As of MNIST, which brings its test part."""
    splits = parts.splits
    names = {"train": "validation", "validation": "train", "test": "test"}
    moved = dataclasses.replace(
        splits,
        train=splits.validation,
        validation=splits.train,
        indices={name: splits.indices[other] for name, other in names.items()},
    )
    dealt = pictures.load_parts(dataset, moved)
    other, _ = run_into(tmp_path / "other", dealt, dataclasses.replace(config, epochs=1))
    rows, _ = scoring.compare([runs[1], other], dataset, report=silent)
    assert [row.name for row in rows] == ["real pictures", "game", "other"]


@pytest.mark.one_backend
def test_a_conditional_model_is_told_labels_of_its_own_classes(
    config, dataset, parts, by_pixels, tmp_path
):
    told = dataclasses.replace(config, epochs=1, conditional=True)
    run, _ = run_into(tmp_path / "run", parts, told)
    flat = dataclasses.replace(dataset, class_names=(), labels=np.zeros_like(dataset.labels))
    with pytest.raises(ValueError, match="expected the same folders"):
        scoring.compare([run], flat, report=silent)


@pytest.mark.one_backend
def test_only_runs_of_the_same_pictures_are_compared(runs, parts, config, tmp_path, by_pixels):
    other = datasets.ImageDataset.from_arrays(
        parts.images["train"][..., ::-1, :],
        np.arange(len(parts.images["train"])) % 2,
        class_names=["a", "b"],
        name="others",
        near_duplicates=False,
    )
    dealt = pictures.load_parts(other, pictures.split(other, seed=0))
    game, _ = run_into(tmp_path / "other", dealt, dataclasses.replace(config, epochs=1))
    with pytest.raises(ValueError, match="different pictures for their tests"):
        scoring.compare([runs[0], game], other, report=silent)
    with pytest.raises(ValueError, match="no run to compare"):
        scoring.compare([], other, report=silent)


def test_settings_that_make_no_sense_name_their_run(config, parts, tmp_path):
    run = experiment.open_run(tmp_path / "run", parts, config)
    described = run.config
    described["settings"]["filters"] = [0]
    run.write_config(described)
    with pytest.raises(ValueError, match=r"run: config\.json is damaged \(filters="):
        experiment.settings_of(run)


def test_a_classifier_draws_nothing(tmp_path):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "transfer"})
    with pytest.raises(ValueError, match="expected one that draws pictures, vae or gan"):
        scoring.Generator.of(run)
