"""Scores of oddness against closed forms and pairs counted one by one."""

import math

import numpy as np
import pytest

from safelight import vae
from safelight.datasets import ImageDataset
from safelight.runs import Run
from safelight.vae import anomalies
from safelight.vae.aggregate import AggregatePosterior
from safelight.vae.anomalies import (
    AnomalyReport,
    draw_anomalies,
    judge_scores,
    learn_normal,
    report_anomalies,
    score_anomalies,
    write_scores,
)
from safelight.vae.estimates import draw_pixels
from safelight.vae.probes import choose

RNG = np.random.default_rng(0)
SHAPE = (6, 5, 1)


def small_model(**settings):
    values = {"latent_dim": 3, "hidden_units": (8,), "precision": "float32", **settings}
    config = vae.TrainConfig(**{"likelihood": "gaussian", **values})
    return vae.build_vae(SHAPE, config, num_classes=2)


def stripes(num_images, *, upright, seed=0):
    """Soft stripes at random places."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(0, 6, (num_images, 1, 1))
    rows, columns = np.mgrid[:6, :5]
    waves = 127 + 100 * np.sin((columns if upright else rows)[None] + places)
    return (waves + rng.normal(0, 5, waves.shape)).clip(0, 255).astype(np.uint8)[..., None]


def some_images(num_images=10):
    return RNG.integers(0, 256, (num_images, *SHAPE), dtype=np.uint8)


# --- the scores


def test_the_scores_of_latents_have_their_closed_forms(monkeypatch):
    model, images = small_model(), some_images()
    # Thousands of draws of latents take no time, of pictures they would.
    monkeypatch.setattr(type(model), "elbo", lambda *_, **__: {"elbo": np.zeros(10)})
    mean, log_variance = (part.astype(float) for part in model.encode(images))
    normal = AggregatePosterior(np.full((1, 3), 0.4), np.full((1, 3), -0.5))
    scores = score_anomalies(model, images, normal=normal, num_draws=4000)
    variance = np.exp(log_variance)
    under_prior = 0.5 * (mean**2 + variance + math.log(2 * math.pi)).sum(1)
    squares = ((mean - 0.4) ** 2 + variance) * math.exp(0.5)
    under_normal = 0.5 * (squares - 0.5 + math.log(2 * math.pi)).sum(1)
    np.testing.assert_allclose(scores["prior"], under_prior, rtol=0.03)
    np.testing.assert_allclose(scores["aggregate"], under_normal, rtol=0.03)


def test_the_scores_of_pixels_are_the_model_s_own():
    model, images = small_model(), some_images()
    normal = learn_normal(model, images)
    scores = score_anomalies(model, images, normal=normal, num_draws=2, seed=5)
    draws = [model.elbo(images, seed=seed)["elbo"] for seed in (5, 6)]
    np.testing.assert_allclose(scores["elbo"], -np.mean(draws, axis=0), rtol=1e-5)
    errors = np.square(model.reconstruct(images) - images / 255).mean((1, 2, 3)) ** 0.5
    np.testing.assert_allclose(scores["reconstruction_error"], errors, rtol=1e-4)


def test_black_and_white_models_score_one_draw_of_pixels():
    """The noise of all latents is of one seed: nothing but the draw of pixels can differ."""
    model, images = small_model(likelihood="bernoulli"), some_images()
    normal = learn_normal(model, images)
    drawn, others = (draw_pixels(model, images, seed=seed) for seed in (1, 2))
    grey, same, other = (
        score_anomalies(model, each, normal=normal, seed=1) for each in (images, drawn, others)
    )
    for name in ("elbo", "prior", "aggregate"):
        np.testing.assert_allclose(grey[name], same[name], rtol=1e-5)
        assert np.abs(grey[name] - other[name]).max() > 1e-2
    # What comes back is of the grey values, and is compared with them.
    errors = np.square(model.reconstruct(images) - images / 255).mean((1, 2, 3)) ** 0.5
    np.testing.assert_allclose(grey["reconstruction_error"], errors, rtol=1e-4)


def test_what_is_normal_is_learned_from_one_draw_of_pixels_of_every_picture():
    model, images = small_model(likelihood="bernoulli"), some_images()
    normal = learn_normal(model, images, seed=3)
    mean, log_variance = model.encode(draw_pixels(model, images, seed=3))
    np.testing.assert_allclose(normal.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(normal.log_variance, log_variance, rtol=1e-5, atol=1e-6)
    for others in (images, draw_pixels(model, images, seed=0)):
        assert np.abs(model.encode(others)[0] - mean).max() > 1e-2


def test_of_very_many_normal_pictures_some_are_drawn_with_their_labels(monkeypatch):
    monkeypatch.setattr(anomalies, "MAX_IMAGES", 6)
    model, images, labels = small_model(conditional=True), some_images(), np.arange(10) % 3 % 2
    some = choose(10, 6, seed=3)
    assert not np.array_equal(some, choose(10, 6, seed=0))
    mean, _ = model.encode(images[some], labels[some])
    found = learn_normal(model, images, labels, seed=3).mean
    np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)
    assert np.abs(model.encode(images[some], 1 - labels[some])[0] - mean).max() > 1e-2


def test_a_report_is_on_the_scores_of_its_seed_against_what_was_learned():
    model, images, learned = small_model(likelihood="bernoulli"), some_images(), some_images()
    report = report_anomalies(model, images, learned=learned, seed=3)
    normal = learn_normal(model, learned, seed=3)
    for name, values in score_anomalies(model, images, normal=normal, seed=3).items():
        np.testing.assert_allclose(report.scores[name], values, rtol=1e-5)


def test_no_draws_are_refused():
    model, images = small_model(), some_images()
    with pytest.raises(ValueError, match="num_draws=0"):
        score_anomalies(model, images, normal=learn_normal(model, images), num_draws=0)


# --- what they find


def test_the_auroc_is_the_share_of_pairs_in_order_ties_counting_half():
    odd = RNG.random(60) < 0.4
    values = np.round(RNG.normal(size=60) + odd, 1) * 1000  # rounded, so that some are tied
    pairs = [(a > b) + (a == b) / 2 for a in values[odd] for b in values[~odd]]
    found = judge_scores({"a": values, "minus": -values, "e": np.exp(values / 1000)}, odd)
    assert found["a"].value == pytest.approx(np.mean(pairs))
    assert found["minus"].value == pytest.approx(1 - np.mean(pairs))
    assert found["e"] == found["a"]
    assert found["a"].low < found["a"].value < found["a"].high


@pytest.mark.parametrize("confidence", [0.5, 0.8, 0.99])
def test_an_auroc_of_one_is_as_certain_as_was_asked(confidence):
    odd = np.arange(60) >= 30
    area = judge_scores({"elbo": np.arange(60.0)}, odd, confidence=confidence)["elbo"]
    # An error that none of 60 pictures showed: one that ranks last costs all the pairs it is in.
    unseen = 1 - ((1 - confidence) / 2) ** (1 / 60)
    assert (area.value, area.high) == (1, 1)
    assert area.low == pytest.approx(1 - 2 * unseen)


@pytest.mark.parametrize(("value", "words"), [(False, "no anomalies"), (True, "no normal pict")])
def test_one_kind_alone_cannot_be_told_apart(value, words):
    with pytest.raises(ValueError, match=words):
        judge_scores({"elbo": np.zeros(4)}, np.full(4, value))


@pytest.mark.one_backend
def test_a_model_of_stripes_that_lie_finds_those_that_stand():
    learned = stripes(300, upright=False)
    config = vae.TrainConfig(
        latent_dim=3, hidden_units=(32,), likelihood="gaussian", precision="float32", epochs=40
    )
    model = vae.train(
        vae.build_vae(SHAPE, config, mean_picture=learned.mean(0) / 255), learned, config=config
    ).model
    images = np.concatenate([stripes(40, upright=False, seed=1), stripes(30, upright=True, seed=2)])
    odd = np.arange(70) >= 40
    report = report_anomalies(model, images, learned=learned, is_anomalous=odd, normal="lying")
    assert report.auroc["elbo"].value > 0.99
    assert report.auroc["reconstruction_error"].value > 0.99
    assert (report.num_images, report.num_anomalous) == (70, 30)
    assert set(report.to_dict()["auroc"]) == set(report.scores)


def test_a_conditional_model_would_have_to_be_told():
    model, images = small_model(conditional=True), some_images()
    with pytest.raises(ValueError, match="without --conditional"):
        report_anomalies(model, images, learned=images)


# --- what is kept


def scored(model, images, **options):
    report = report_anomalies(model, images, learned=images, **options)
    labels = RNG.integers(0, 2, len(images))
    labels[:2] = 0, 1
    return report, ImageDataset.from_arrays(images, labels, class_names=("fine", "odd"))


def test_the_file_has_a_line_per_picture_the_oddest_first(tmp_path):
    model, images = small_model(), some_images()
    report, dataset = scored(model, images)
    run = Run.create(tmp_path / "run")
    write_scores(run, dataset, report)
    header, *lines = (run.path / "anomalies.csv").read_text().splitlines()
    assert header == "file,label,elbo,reconstruction_error,prior,aggregate"
    rows = [line.split(",") for line in lines]
    values = [float(row[2]) for row in rows]
    assert values == sorted(values, reverse=True)
    for row in rows:
        i = dataset.files.index(row[0])
        assert row[1] == dataset.class_names[dataset.labels[i]]
        assert float(row[5]) == pytest.approx(report.scores["aggregate"][i], rel=1e-5)


def test_without_labels_there_is_no_curve_to_draw():
    model, images = small_model(), some_images()
    report, dataset = scored(model, images)
    assert isinstance(report, AnomalyReport)
    assert report.num_anomalous is None
    assert set(draw_anomalies(model, images, dataset, report=report)) == {
        "anomalies", "anomaly_scores",
    }  # fmt: skip
    told = dataset.labels == 1
    report = report_anomalies(model, images, learned=images, is_anomalous=told, normal="fine")
    assert "anomaly_roc" in draw_anomalies(model, images, dataset, report=report)
