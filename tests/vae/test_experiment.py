"""From data to a run folder, and back."""

import csv
import dataclasses
import json

import keras
import numpy as np
import pytest
from PIL import Image

from safelight import datasets, known_pictures
from safelight.generative import pictures, records
from safelight.runs import Run, list_runs
from safelight.vae import experiment, training
from safelight.vae.config import TrainConfig
from safelight.vae.evaluation import evaluate

CONFIG = TrainConfig(latent_dim=3, hidden_units=(16,), epochs=3, batch_size=16, seed=1)
BITS = keras.backend.backend() == "tensorflow"


def silent(*_):
    pass


def clouds(num_images, size=(9, 14), channels=3, seed=0):
    """Soft pictures, uint8 (num_images, *size, channels)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (num_images, 3, 3, channels)).astype(np.uint8)
    return np.stack(
        [
            np.asarray(
                Image.fromarray(c.squeeze()).resize(size[::-1], Image.Resampling.BICUBIC)
            ).reshape(*size, channels)
            for c in coarse
        ]
    )


def make_parts(*, num_images=60, channels=3, num_classes=2, name="clouds"):
    images = clouds(num_images, channels=channels)
    dataset = datasets.ImageDataset.from_arrays(
        images,
        np.arange(num_images) % max(num_classes, 1),
        class_names=[f"class {i}" for i in range(num_classes)] or [""],
        name=name,
        near_duplicates=False,
    )
    if not num_classes:
        dataset = dataclasses.replace(dataset, class_names=())
    return pictures.load_parts(dataset, pictures.split(dataset, seed=0))


def run_into(path, parts, config=CONFIG, report=silent, **options):
    config = experiment.resolve(config, parts)
    run = experiment.open_run(path, parts, config, **options)
    metrics = experiment.run_training(
        run, parts, config, report=report, num_importance_samples=20, num_scored=8
    )
    return run, metrics


@pytest.fixture(scope="module")
def parts():
    return make_parts()


@pytest.fixture(scope="module")
def trained(tmp_path_factory, parts):
    return run_into(tmp_path_factory.mktemp("trained") / "run", parts, source="../clouds")


# --- the folder


def test_a_run_folder_is_complete(trained, parts):
    run, metrics = trained
    assert run.finished
    assert not run.path.joinpath("checkpoint.npz").exists()
    assert not [p.name for p in run.path.rglob("*") if "partial" in p.name]
    assert json.loads((run.path / "metrics.json").read_text()) == run.metrics
    for name in ("elbo", "reconstruction", "kl", "log_likelihood", "reconstruction_error"):
        found = run.metrics[name]
        assert found["low"] <= found["value"] <= found["high"]
        assert found["value"] == pytest.approx(metrics[name]["value"])
    assert len(run.history["elbo"]) == CONFIG.epochs
    assert np.load(run.path / "history_kl.npy").shape == (CONFIG.epochs, CONFIG.latent_dim)
    assert {path.stem for path in run.pictures} == {
        "aggregate", "history", "interpolation", "kl_per_unit", "latent_manifold", "latent_scatter",
        "reconstructions", "samples", "traversals",
    }  # fmt: skip
    for picture in run.pictures:
        with Image.open(picture) as image:
            assert np.asarray(image.convert("L")).std() > 0
    assert run.environment["backend"] == keras.backend.backend()
    assert run.config["kind"] == "vae"
    assert run.config["dataset"]["source"] == "../clouds"
    assert run.config["image_shape"] == [9, 14, 3]


def test_the_likelihood_of_each_picture_is_kept_beside_its_name(trained, parts):
    """So that another run on the same pictures can be compared with it, one by one."""
    run, metrics = trained
    table = run.predictions
    files = parts.splits.test.files
    shown = [files.index(file) for file in table["file"]]
    assert len(set(shown)) == 8
    values = np.array(table["log_likelihood"], float)
    assert values.mean() == pytest.approx(metrics["log_likelihood"]["value"], abs=1e-4)
    # The gap is that of these pictures, while the bound beside it is of all.
    assert metrics["importance_sampling"]["num_images"] == 8 < metrics["num_images"]
    gap = metrics["log_likelihood"]["value"] - metrics["elbo"]["value"]
    assert abs(metrics["gap"]["value"] - gap) > 1e-3
    some = evaluate(
        experiment.load_vae(run),
        parts.images["test"],
        num_importance_samples=20,
        num_images=8,
        seed=CONFIG.seed,
    )
    assert metrics["gap"]["value"] == pytest.approx(some.gap.value, rel=1e-4)
    # The bound of each picture, drawn anew, stays near its own likelihood and not another's.
    bounds = experiment.load_vae(run).elbo(parts.images["test"][shown], seed=5)["elbo"]
    assert np.corrcoef(values, bounds)[0, 1] > 0.9


def test_the_numbers_say_how_they_were_made(trained, parts):
    metrics = trained[0].metrics
    protocol = metrics["protocol"]
    assert metrics["num_images"] == protocol["num_test"] == len(parts.splits.test) == 15
    assert metrics["num_importance_samples"] == 20
    assert "20 importance samples" in protocol["log_likelihood"]
    assert "8 images" in protocol["log_likelihood"]
    assert protocol["dataset_fingerprint"] == parts.dataset.fingerprint
    assert protocol["likelihood"] == "discretized_logistic"
    assert protocol["binarization"] == "none"
    assert protocol["interrupted"] is False
    assert metrics["elbo"]["value"] == pytest.approx(
        metrics["reconstruction"]["value"] - metrics["kl"]["value"], rel=1e-5
    )
    assert metrics["standard_error"] > 0
    assert 0 <= metrics["active_units"] <= metrics["latent_dim"] == 3
    assert set(metrics["probes"]["latent"]) == {"linear", "neighbors"}


def test_the_saved_model_gives_the_judged_answers(trained, parts):
    run, metrics = trained
    assert metrics["saved_model"]["num_images"] == 15
    assert metrics["saved_model"]["max_difference"] < 1e-5
    model = experiment.load_vae(run)
    judged = model.elbo(parts.images["test"], seed=CONFIG.seed)["elbo"].mean()
    assert judged == pytest.approx(run.metrics["elbo"]["value"], rel=0.05)
    assert model.reconstruct(parts.images["test"]).shape == (15, 9, 14, 3)


def test_runs_are_listed_with_their_numbers(trained):
    run, _ = trained
    (row,) = list_runs(run.path.parent)
    assert (row.kind, row.dataset, row.finished) == ("vae", "clouds", True)
    assert {"elbo", "reconstruction", "kl", "log_likelihood"} <= set(row.metrics)


def test_settings_come_back_without_auto(trained):
    settings = experiment.settings_of(trained[0])
    assert settings == dataclasses.replace(
        CONFIG, likelihood="discretized_logistic", binarization="none"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "transfer"}, "kind 'transfer'"),
        ({"settings": {"latent_dim": 2, "colour": 3}}, r"\['colour'\] are unknown"),
    ],
)
def test_settings_of_another_kind_or_version_are_refused(tmp_path, change, message):
    run = Run.create(tmp_path / "run")
    run.write_config({"kind": "vae", "settings": {}, **change})
    with pytest.raises(ValueError, match=message):
        experiment.settings_of(run)


# --- "auto"


@pytest.mark.parametrize(
    ("name", "asked", "expected"),
    [
        ("mnist", {}, ("bernoulli", "dynamic")),
        ("cells", {}, ("discretized_logistic", "none")),
        ("fashion-mnist", {}, ("discretized_logistic", "none")),
        ("mnist", {"binarization": "none"}, ("discretized_logistic", "none")),
        ("cells", {"binarization": "static"}, ("bernoulli", "static")),
        ("cells", {"likelihood": "bernoulli"}, ("bernoulli", "dynamic")),
        ("mnist", {"likelihood": "gaussian"}, ("gaussian", "none")),
    ],
)
def test_auto_suits_the_pictures(name, asked, expected):
    parts = make_parts(num_images=20, channels=1, name=name)
    config = experiment.resolve(TrainConfig(**asked), parts)
    assert (config.likelihood, config.binarization) == expected
    assert experiment.resolve(config, parts) == config


def test_a_conditional_model_needs_classes():
    parts = make_parts(num_images=20, num_classes=0)
    with pytest.raises(ValueError, match="conditional=True, but clouds has no classes"):
        experiment.resolve(TrainConfig(conditional=True), parts)


# --- other shapes of data


@pytest.mark.parametrize(
    ("data", "settings"),
    [
        ({"channels": 1, "num_classes": 0}, {"latent_dim": 1}),
        ({"channels": 1, "num_classes": 3}, {"conditional": True, "likelihood": "bernoulli"}),
        ({"num_classes": 0}, {"latent_dim": 2, "architecture": "conv", "hidden_units": (4, 4)}),
        ({"channels": 1}, {"binarization": "static", "latent_dim": 2}),
    ],
)
@pytest.mark.one_backend
def test_every_kind_of_pictures_makes_a_run(tmp_path, data, settings):
    parts = make_parts(num_images=24, **data)
    config = dataclasses.replace(CONFIG, epochs=1, **settings)
    run, metrics = run_into(tmp_path / "run", parts, config)
    assert run.finished
    assert np.isfinite(metrics["elbo"]["value"])
    assert (metrics["probes"] is None) == (not data.get("num_classes", 2) or config.conditional)
    stems = {path.stem for path in run.pictures}
    assert ("latent_manifold" in stems) == (config.latent_dim > 1)
    assert metrics["protocol"]["binarization"] == run.config["settings"]["binarization"]


def test_static_pictures_are_drawn_once_for_each_part(parts):
    config = TrainConfig(likelihood="bernoulli", binarization="static")
    images = parts.images["test"]
    drawn = experiment.judged_part(images, config)
    assert set(np.unique(drawn)) == {0, 255}
    np.testing.assert_array_equal(drawn, experiment.judged_part(images, config))
    assert experiment.judged_part(images, TrainConfig()) is images


@pytest.mark.one_backend
def test_readers_of_labels_learn_from_and_are_judged_on_pictures_of_one_kind(
    tmp_path, parts, monkeypatch
):
    seen, learned = [], []
    judge, train = experiment.evaluate, training.EpochLoop.__init__

    def watch(model, data, **options):
        seen.append((data[0], options.get("train")))
        return judge(model, data, **options)

    def watch_training(self, model, images, *arguments, **options):
        learned.append(images)
        train(self, model, images, *arguments, **options)

    monkeypatch.setattr(experiment, "evaluate", watch)
    monkeypatch.setattr(training.EpochLoop, "__init__", watch_training)
    for binarization, levels in (("static", 2), ("none", 256)):
        config = dataclasses.replace(CONFIG, epochs=1, binarization=binarization)
        run_into(tmp_path / binarization, parts, config)
        test, (fit, labels) = seen[0]
        assert len(np.unique(test)) <= levels
        np.testing.assert_array_equal(fit, learned[0])
        np.testing.assert_array_equal(labels, parts.labels["train"])
        seen.clear(), learned.clear()


# --- cut off, and continued


class KilledError(Exception):
    """Nothing that training answers to."""


def kill_at(epoch_words, calls):
    seen = []

    def report(stage, *_):
        seen.append(stage)
        if seen.count(epoch_words) == calls:
            raise KilledError

    return report


@pytest.fixture
def cut_off(tmp_path, parts, monkeypatch):
    """A run that was killed before its last epoch, and the settings that it had."""
    monkeypatch.setattr(training, "_CHECKPOINT_SECONDS", 0.0)
    config = dataclasses.replace(CONFIG, epochs=6)
    with pytest.raises(KilledError):
        run_into(tmp_path / "run", parts, config, kill_at("training", 8))
    return tmp_path / "run", config


@pytest.mark.one_backend
def test_a_killed_run_goes_on_to_the_same_end(cut_off, parts, tmp_path):
    path, config = cut_off
    assert (path / "checkpoint.npz").exists()
    assert [row.finished for row in list_runs(tmp_path)] == [False]
    created = Run.open(path).config["created"]
    run, _ = run_into(path, parts, config)
    assert run.config["created"] == created
    assert not (path / "checkpoint.npz").exists()
    straight, _ = run_into(tmp_path / "straight", parts, config)
    models = [experiment.load_vae(each) for each in (run, straight)]
    for first, second in zip(*(model.weights for model in models), strict=True):
        first, second = (keras.ops.convert_to_numpy(each.value) for each in (first, second))
        if BITS:
            np.testing.assert_array_equal(first, second)
        else:
            np.testing.assert_allclose(first, second, rtol=1e-3, atol=1e-4)
    assert run.metrics["elbo"] == pytest.approx(straight.metrics["elbo"], rel=1e-3)
    assert len(run.history["elbo"]) == 6


@pytest.mark.one_backend
def test_other_settings_or_data_never_continue_a_run(cut_off, parts):
    path, config = cut_off
    for other in ({"epochs": 7}, {"latent_dim": 4}):
        name, value = next(iter(other.items()))
        before = getattr(config, name)
        with pytest.raises(ValueError, match=f"{name} {before} instead of {value}.*--overwrite"):
            run_into(path, parts, dataclasses.replace(config, **other))
    with pytest.raises(ValueError, match="other data"):
        run_into(path, make_parts(num_images=50), config)
    written = (path / "config.json").read_text()
    other = json.loads(written) | {"kind": "gan"}
    (path / "config.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="unfinished run of kind gan, not vae"):
        run_into(path, parts, config)
    (path / "config.json").write_text(written)
    settings_of_older = dict(Run.open(path).config["settings"])
    del settings_of_older["flow_units"]
    older = json.loads(written) | {"settings": settings_of_older}
    (path / "config.json").write_text(json.dumps(older))
    with pytest.raises(ValueError, match=r"another version of Safelight.*flow_units.*--overwrite"):
        run_into(path, parts, config)
    (path / "config.json").write_text(written)
    assert (path / "checkpoint.npz").exists()
    run, _ = run_into(path, parts, dataclasses.replace(config, epochs=1), overwrite=True)
    assert len(run.history["elbo"]) == 1


@pytest.mark.one_backend
def test_ctrl_c_finishes_the_run_with_what_was_learnt(tmp_path, parts):
    seen = []

    def report(stage, *_):
        seen.append(stage)
        if stage == "training" and seen.count(stage) == 4:
            raise KeyboardInterrupt

    config = dataclasses.replace(CONFIG, epochs=500)
    run, metrics = run_into(tmp_path / "run", parts, config, report)
    assert metrics["protocol"]["interrupted"] is True
    assert run.finished
    assert 1 <= len(run.history["elbo"]) < 500


@pytest.mark.one_backend
def test_ctrl_c_in_the_first_epoch_leaves_a_whole_run(tmp_path, parts):
    seen = []

    def report(stage, *_):
        seen.append(stage)
        if stage == "training" and seen.count(stage) == 2:
            raise KeyboardInterrupt

    run, metrics = run_into(tmp_path / "run", parts, CONFIG, report)
    assert metrics["protocol"]["interrupted"] is True
    assert (run.finished, metrics["epochs"], run.history["elbo"]) == (True, 0, [])
    assert np.load(run.path / "history_kl.npy").shape == (0, CONFIG.latent_dim)
    stems = {path.stem for path in run.pictures}
    assert {"samples", "reconstructions"} < stems
    assert not {"history", "kl_per_unit"} & stems  # of no epochs
    assert [row.finished for row in list_runs(tmp_path)] == [True]


# --- a run is opened again


def test_the_own_test_part_and_unseen_pictures_are_told_apart(trained, parts):
    run, splits = trained[0], parts.splits
    own = records.find_part(run, parts.dataset, "test")
    assert own.digests == splits.test.digests
    unseen, left_out = known_pictures.unseen_part(run, parts.dataset)
    assert (unseen.digests, left_out) == (own.digests, 45)
    with pytest.raises(ValueError, match="were used to train"):
        known_pictures.unseen_part(run, splits.train)
    with pytest.raises(ValueError, match="15 of the 15 test pictures"):
        records.find_part(run, splits.train, "test")


def test_a_damaged_or_another_or_a_dangerous_model_is_refused(tmp_path):
    run = Run.create(tmp_path / "run")
    with pytest.raises(ValueError, match="did not finish"):
        experiment.load_vae(run)
    run.model_path.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"model\.keras is damaged"):
        experiment.load_vae(run)
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(run.model_path)
    with pytest.raises(ValueError, match="cannot be read"):
        experiment.load_vae(run)
    keras.Model(inputs, keras.layers.Dense(1)(inputs)).save(run.model_path)
    with pytest.raises(ValueError, match="expected a variational autoencoder"):
        experiment.load_vae(run)


def test_latents_are_written_for_other_programs(tmp_path, parts):
    test = parts.splits.test
    mean, log_variance = np.random.default_rng(0).normal(size=(2, len(test), 3))
    experiment.write_latents(tmp_path / "z.npz", test, mean, log_variance)
    with np.load(tmp_path / "z.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["mean"], mean)
        np.testing.assert_array_equal(file["log_variance"], log_variance)
        assert file["files"].tolist() == list(test.files)
        assert file["labels"].tolist() == [test.class_names[i] for i in test.labels]
    experiment.write_latents(tmp_path / "z.csv", test, mean, log_variance)
    with (tmp_path / "z.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == list(test.files)
    written = np.array([[float(row[f"mean_{i}"]) for i in range(3)] for row in rows])
    np.testing.assert_allclose(written, mean, rtol=1e-5)
