"""Kernel ridge regression: scikit-learn's own answers, and the network that repeats them."""

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.kernel_ridge import KernelRidge

from safelight.transfer import kernel_heads, models
from safelight.transfer.calibration import fit_temperature
from safelight.transfer.features import FeatureLayer
from safelight.transfer.kernel_heads import fit_kernel_head
from safelight.transfer.roots import scaled_roots


def rings(num_images=120, num_views=1, seed=0, spread=0.05):
    """Two rings, one in the other: no line separates them. `(n, views, 4)` and one-hot targets."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    angle = rng.uniform(0, 2 * np.pi, num_images)
    radius = 1 + labels + rng.normal(0, 0.15, num_images)
    plane = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    rows = np.concatenate([plane, rng.normal(0, 0.3, (num_images, 2))], 1)
    views = rows[:, None] + rng.normal(0, spread, (num_images, num_views, 4))
    return views.astype("float32"), np.eye(2, dtype="float32")[labels]


def standardised(head, rows, widths=()):
    return (scaled_roots(rows, widths) - head.mean) / head.scale


def scores(head, rows, widths=()):
    x = standardised(head, rows, widths)
    distances = ((x[:, None] - head.landmarks[None]) ** 2).sum(-1)
    return np.exp(-head.gamma * distances) @ head.kernel + head.bias


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_views", [1, 3])
def test_it_is_scikit_learn_s_kernel_ridge_up_to_the_temperature(num_views, weighted):
    features, targets = rings(num_views=num_views)
    weights = np.random.default_rng(1).uniform(0.2, 3, 120) if weighted else np.ones(120)
    head = fit_kernel_head(features, targets, weights=weights if weighted else None)
    flat = standardised(head, features.reshape(-1, 4))
    repeated, each = (np.repeat(rows, num_views, axis=0) for rows in (targets, weights))
    mean = np.average(targets, axis=0, weights=weights)
    known = KernelRidge(alpha=head.ridge, kernel="rbf", gamma=head.gamma)
    expected = known.fit(flat, repeated - mean, sample_weight=each).predict(flat) + mean

    found = scores(head, features.reshape(-1, 4))
    temperature = (expected @ [-1, 1]).std() / (found @ [-1, 1]).std()
    # The smaller a ridge over a weight, the more rounding counts.
    np.testing.assert_allclose(found * temperature, expected, atol=2e-3 * weights.max())


def test_it_separates_what_no_line_can():
    features, targets = rings(200)
    fresh, wanted = rings(200, seed=1)
    answers = scores(fit_kernel_head(features, targets), fresh[:, 0])

    assert (answers.argmax(1) == wanted.argmax(1)).mean() > 0.9


def held_out(x, targets, weights, test_views, model):
    """What scikit-learn says of what a fold leaves out: the mean over the first views of each."""
    found = np.empty(targets.shape)
    for fit, held in kernel_heads.stratified_folds(targets.argmax(1), 3):
        wanted, each = (np.repeat(rows[fit], x.shape[1], axis=0) for rows in (targets, weights))
        mean = np.average(wanted, axis=0, weights=each)
        model.fit(x[fit].reshape(-1, 4), wanted - mean, sample_weight=each)
        judged = x[held].swapaxes(0, 1)[:test_views]
        found[held] = np.mean([model.predict(view) for view in judged], axis=0) + mean
    return found


def try_all(x, targets, weights, test_views):
    """Brute force: the loss and the logits held out of every pair of gamma and ridge."""
    labels, found = targets.argmax(1), {}
    for gamma in (width / 4 for width in kernel_heads.WIDTHS):
        for ridge in kernel_heads.RIDGES:
            model = KernelRidge(alpha=ridge, kernel="rbf", gamma=gamma)
            answers = held_out(x, targets, weights, test_views, model)
            logits = answers / fit_temperature(answers, labels)
            surprise = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
            found[gamma, ridge] = (weights * surprise).sum(), logits
    return found


@pytest.mark.parametrize(
    ("num_views", "trial_views", "test_views", "weighted"),
    [(1, 1, 1, False), (1, 1, 1, True), (3, 3, 1, False), (3, 3, 3, True), (3, 2, 3, False)],
)
def test_the_chosen_settings_have_the_least_held_out_loss(
    monkeypatch, num_views, trial_views, test_views, weighted
):
    """Of as many views as there is time for."""
    monkeypatch.setattr(kernel_heads, "_MAX_TRIAL_ROWS", 80 * trial_views + 79)
    features, targets = rings(80, num_views, spread=0.3)
    weights = np.random.default_rng(1).uniform(0.2, 3, 80) if weighted else np.ones(80)
    head = fit_kernel_head(features, targets, weights=weights, test_views=test_views, seed=3)
    x = standardised(head, features)[:, :trial_views]
    found = try_all(x, targets, weights, test_views)
    loss, logits = found[head.gamma, head.ridge]

    assert loss == pytest.approx(min(each for each, _ in found.values()), rel=1e-4)
    np.testing.assert_allclose(head.out_of_fold, logits, atol=1e-2)


@pytest.mark.parametrize("trial_views", [2, 3])
def test_of_many_rows_the_pictures_alone_say_the_width_and_all_views_how_much_more_ridge(
    monkeypatch, trial_views
):
    monkeypatch.setattr(kernel_heads, "_MANY_ROWS", 80)
    monkeypatch.setattr(kernel_heads, "_MAX_TRIAL_ROWS", 80 * trial_views)
    features, targets = rings(80, 3, spread=0.3)
    head = fit_kernel_head(features, targets, test_views=3, seed=3)
    x, weights = standardised(head, features), np.ones(80)
    alone = try_all(x[:, :1], targets, weights, 1)
    gamma, least = min(alone, key=lambda pair: alone[pair][0])
    ridges = [ridge for ridge in kernel_heads.RIDGES if ridge >= least][:3]
    found = try_all(x[:, :trial_views], targets, weights, 3)
    loss, logits = found[head.gamma, head.ridge]

    assert head.gamma == gamma
    assert loss == pytest.approx(min(found[gamma, ridge][0] for ridge in ridges), rel=1e-4)
    np.testing.assert_allclose(head.out_of_fold, logits, atol=1e-2)


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_of_a_view_want_as_many_times_the_ridge_and_are_then_the_view_alone(
    monkeypatch, copies
):
    """Copies share a weight: with k of them each is 1/k of it if the ridge is k times as large."""
    monkeypatch.setattr(kernel_heads, "RIDGES", tuple(2.0**power for power in range(-7, 9)))
    monkeypatch.setattr(kernel_heads, "_MANY_ROWS", 80)
    features, targets = rings(80)
    targets[::7] = 1 - targets[::7]  # wrong labels, so that the least ridge is not the best
    one = fit_kernel_head(features, targets, seed=3)
    many = fit_kernel_head(np.repeat(features, copies, axis=1), targets, seed=3)
    fresh = rings(40, seed=1)[0][:, 0]

    assert (many.gamma, many.ridge) == (one.gamma, copies * one.ridge)
    np.testing.assert_allclose(many.out_of_fold, one.out_of_fold, atol=1e-2)
    np.testing.assert_allclose(scores(many, fresh), scores(one, fresh), atol=1e-2)


@pytest.mark.parametrize("heavy", [0, 1])
def test_the_settings_are_those_that_heavy_pictures_want(monkeypatch, heavy):
    """As if one ridge answered half of the pictures and another ridge the other half."""
    features, targets = rings(40)
    half, ridges = np.arange(40) // 20, (0.1, 1.0)
    known = {ridge: targets * (half == place)[:, None] for place, ridge in enumerate(ridges)}
    monkeypatch.setattr(kernel_heads, "RIDGES", ridges)
    monkeypatch.setattr(kernel_heads._Trial, "_held_out", lambda *given: known[given[2]])
    weights = np.where(half == heavy, 3.0, 0.3)

    assert fit_kernel_head(features, targets, weights=weights).ridge == ridges[heavy]


def test_a_picture_that_counts_twice_is_a_picture_that_is_there_twice():
    features, targets = rings(40)
    x = features[:, 0]
    distances = kernel_heads._squared_distances
    weights = np.ones(40)
    weights[:5] = 2
    again = np.r_[np.arange(5), np.arange(40)]
    fresh = rings(30, seed=2)[0][:, 0]

    def answers(rows, wanted, ridge):
        kernel, bias = kernel_heads._solve(np.exp(-0.3 * distances(rows, rows)), wanted, ridge)
        return np.exp(-0.3 * distances(fresh, rows)) @ kernel + bias

    weighted = answers(x, targets, 0.2 / weights)
    doubled = answers(x[again], targets[again], np.full(45, 0.2))
    np.testing.assert_allclose(weighted, doubled, atol=1e-4)


@pytest.mark.parametrize("num_views", [1, 2])
def test_the_network_answers_as_the_formula(network, num_views):
    head_layers = [FeatureLayer("block3_add", "avg"), FeatureLayer("block4_pool", "max")]
    raw = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)
    pooled = keras.Model(
        network.input,
        keras.layers.Concatenate()(
            [
                keras.layers.GlobalAveragePooling2D()(network.get_layer("block3_add").output),
                keras.layers.GlobalMaxPooling2D()(network.get_layer("block4_pool").output),
            ]
        ),
    )
    seen = np.stack([pooled.predict(view, verbose=0) for view in (raw, raw[:, :, ::-1])], 1)
    targets = np.eye(3, dtype="float32")[np.arange(20) % 3]
    head = fit_kernel_head(seen[:, :num_views], targets, widths=(6, 8))
    classifier = models.build_classifier(network, head_layers, 3, num_landmarks=20 * num_views)
    models.set_kernel_head(classifier, head)

    expected = softmax(scores(head, seen[:, 0], (6, 8)), axis=1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(classifier(raw)), expected, atol=1e-3)


def test_soft_targets_and_dead_features_are_taken():
    features, targets = rings(40)
    features[..., 3] = 0
    head = fit_kernel_head(features, 0.8 * targets + 0.1)

    assert head.scale[3] == 1
    assert np.isfinite(head.kernel).all()


def test_what_cannot_be_fitted_is_refused(monkeypatch):
    features, targets = rings(20)
    with pytest.raises(ValueError, match="no training image"):
        fit_kernel_head(features, np.pad(targets, ((0, 0), (0, 1))))
    monkeypatch.setattr(kernel_heads, "MAX_ROWS", 10)
    with pytest.raises(ValueError, match="head='logistic'"):
        fit_kernel_head(features, targets)


def test_one_picture_of_a_class_leaves_no_folds():
    features, _ = rings(12)
    targets = np.eye(2, dtype="float32")[[0] * 11 + [1]]
    head = fit_kernel_head(features, targets)

    assert head.out_of_fold is None
    assert scores(head, features[:, 0])[-1].argmax() == 1


def test_the_system_is_solved_in_the_precision_of_the_similarities(monkeypatch):
    """Else its factor is copied to float64: two gigabytes at the most rows."""
    from scipy import linalg

    solved = []
    plain = linalg.cho_solve
    monkeypatch.setattr(
        linalg, "cho_solve", lambda *a, **k: solved.append(plain(*a, **k)) or solved[-1]
    )
    fit_kernel_head(*rings(40))
    assert {each.dtype for each in solved} == {np.dtype("float32")}


def test_a_model_saved_with_plain_roots_still_answers(network, tmp_path):
    pooled = keras.layers.GlobalAveragePooling2D(name="head_block4_pool_avg")(network.output)
    roots = models.SignedRoot(name="head_root", dtype="float32")(pooled)
    older = keras.Model(network.input, models.Standardize(name=models.STANDARDIZE)(roots))
    older.save(tmp_path / "older.keras")
    back = keras.saving.load_model(tmp_path / "older.keras", compile=False, safe_mode=True)
    raw = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    expected = scaled_roots(keras.ops.convert_to_numpy(keras.Model(network.input, pooled)(raw)))
    np.testing.assert_allclose(keras.ops.convert_to_numpy(back(raw)), expected, atol=1e-5)
