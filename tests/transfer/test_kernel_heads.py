"""Kernel ridge regression: scikit-learn's own answers, and the network that repeats them."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.kernel_ridge import KernelRidge

from safelight.transfer import kernel_heads, models
from safelight.transfer.calibration import fit_temperature
from safelight.transfer.features import FeatureLayer
from safelight.transfer.kernel_heads import fit_kernel_head
from safelight.transfer.roots import scaled_roots


def rings(num_images=120, num_views=1, seed=0):
    """Two rings, one in the other: no line separates them. `(n, views, 4)` and one-hot targets."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % 2
    angle = rng.uniform(0, 2 * np.pi, num_images)
    radius = 1 + labels + rng.normal(0, 0.15, num_images)
    plane = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    rows = np.concatenate([plane, rng.normal(0, 0.3, (num_images, 2))], 1)
    views = rows[:, None] + rng.normal(0, 0.05, (num_images, num_views, 4))
    return views.astype("float32"), np.eye(2, dtype="float32")[labels]


def scores(head, rows, widths=()):
    x = (scaled_roots(rows, widths) - head.mean) / head.scale
    distances = ((x[:, None] - head.landmarks[None]) ** 2).sum(-1)
    return np.exp(-head.gamma * distances) @ head.kernel + head.bias


@pytest.mark.parametrize("num_views", [1, 3])
def test_it_is_scikit_learn_s_kernel_ridge_up_to_the_temperature(num_views):
    features, targets = rings(num_views=num_views)
    head = fit_kernel_head(features, targets)
    flat = (scaled_roots(features.reshape(-1, 4)) - head.mean) / head.scale
    repeated = np.repeat(targets, num_views, axis=0)
    known = KernelRidge(alpha=head.ridge, kernel="rbf", gamma=head.gamma)
    expected = known.fit(flat, repeated - targets.mean(0)).predict(flat) + targets.mean(0)

    found = scores(head, features.reshape(-1, 4))
    temperature = (expected @ [-1, 1]).std() / (found @ [-1, 1]).std()
    np.testing.assert_allclose(found * temperature, expected, atol=2e-3)


def test_it_separates_what_no_line_can():
    features, targets = rings(200)
    fresh, wanted = rings(200, seed=1)
    answers = scores(fit_kernel_head(features, targets), fresh[:, 0])

    assert (answers.argmax(1) == wanted.argmax(1)).mean() > 0.9


def test_the_chosen_settings_have_the_least_held_out_loss():
    """Brute force: every pair of settings, every fold, fitted by scikit-learn."""
    features, targets = rings(80)
    head = fit_kernel_head(features, targets, seed=3)
    x = (scaled_roots(features[:, 0]) - head.mean) / head.scale
    labels = targets.argmax(1)
    losses, held_out = {}, {}
    for width in kernel_heads.WIDTHS:
        for ridge in kernel_heads.RIDGES:
            found = np.empty_like(targets)
            for fit, held in kernel_heads.stratified_folds(labels, 3):
                mean = targets[fit].mean(0)
                model = KernelRidge(alpha=ridge, kernel="rbf", gamma=width / 4)
                found[held] = model.fit(x[fit], targets[fit] - mean).predict(x[held]) + mean
            logits = found / fit_temperature(found, labels)
            chances = softmax(logits, axis=1)[np.arange(80), labels]
            losses[width / 4, ridge], held_out[width / 4, ridge] = -np.log(chances).mean(), logits

    assert (head.gamma, head.ridge) == min(losses, key=losses.get)
    np.testing.assert_allclose(head.out_of_fold, held_out[head.gamma, head.ridge], atol=1e-2)


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
