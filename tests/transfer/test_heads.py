import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from safelight.transfer import heads
from safelight.transfer.config import TrainConfig
from safelight.transfer.heads import fit_dense_head, fit_logistic_head, standardization


def make_rows(num_classes: int, num_images: int = 90, num_features: int = 6, seed: int = 0):
    """Overlapping clouds of very different scales: `(n, 1, f)` float32 and one-hot targets."""
    rng = np.random.default_rng(seed)
    labels = np.arange(num_images) % num_classes
    centres = rng.normal(0, 1.2, (num_classes, num_features))
    rows = centres[labels] + rng.normal(0, 1, (num_images, num_features))
    rows = rows * 10.0 ** np.arange(num_features) / 100 + 3
    return rows.astype("float32")[:, None], np.eye(num_classes, dtype="float32")[labels]


def probabilities(head: heads.LinearHead, rows: np.ndarray) -> np.ndarray:
    return softmax((rows - head.mean) / head.scale @ head.kernel + head.bias, axis=1)


def reference(rows, labels, strength, **fit) -> np.ndarray:
    """scikit-learn's own pipeline, its scaler fitted on the rows as they are."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, tol=1e-8))
    options = {f"logisticregression__{k}": v for k, v in fit.items()}
    return model.fit(rows, labels, **options).predict_proba(rows)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_scikit_learn_s_pipeline_at_the_strength_it_chose(num_classes, weighted):
    features, targets = make_rows(num_classes)
    weights = np.random.default_rng(1).uniform(0.2, 3, len(targets)) if weighted else None
    head = fit_logistic_head(features, targets, weights=weights)
    rows, labels = features[:, 0].astype(float), targets.argmax(1)
    expected = reference(rows, labels, head.inverse_strength, sample_weight=weights)
    np.testing.assert_allclose(probabilities(head, rows), expected, atol=5e-3)
    assert head.kernel.shape == (6, num_classes)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_its_strength_is_that_of_a_grid_search(num_classes):
    features, targets = make_rows(num_classes, seed=5)
    labels = targets.argmax(1)
    mean, scale = standardization(features[:, 0])
    search = GridSearchCV(
        LogisticRegression(max_iter=5000, tol=1e-6),
        {"C": heads.INVERSE_STRENGTHS},
        scoring="neg_log_loss",
        cv=StratifiedKFold(4, shuffle=True, random_state=3),
    ).fit((features[:, 0] - mean) / scale, labels)
    head = fit_logistic_head(features, targets, seed=3)
    assert head.inverse_strength == search.best_params_["C"]


def test_soft_targets_equal_replicated_rows(monkeypatch):
    """A target of (1/4, 3/4) is four copies of the image, one and three of the classes."""
    monkeypatch.setattr(heads, "INVERSE_STRENGTHS", (0.1,))
    features, _ = make_rows(2, 40)
    quarters = np.random.default_rng(0).integers(0, 5, 40)
    quarters[:2] = (0, 4)
    targets = np.stack([4 - quarters, quarters], axis=1) / 4
    head = fit_logistic_head(features, targets)
    rows = features[:, 0].astype(float)
    copies, labels = [], []
    for row, quarter in zip(rows, quarters, strict=True):
        copies += [row] * 4
        labels += [0] * (4 - quarter) + [1] * quarter
    expected = reference(np.array(copies), labels, 0.1 / 4)[::4]
    np.testing.assert_allclose(probabilities(head, rows), expected, atol=5e-3)


def test_a_rare_soft_class_that_a_fold_lacks_is_no_obstacle():
    features, targets = make_rows(3, 30)
    targets = np.eye(3)[targets.argmax(1) % 2]
    targets[0] = (0.6, 0.0, 0.4)
    head = fit_logistic_head(features, targets)
    assert probabilities(head, features[:, 0])[:, 2].argmax() == 0


@pytest.mark.parametrize("hard", [True, False])
def test_a_view_repeated_is_the_view_alone(hard):
    features, targets = make_rows(3)
    targets = targets if hard else 0.8 * targets + 0.2 / 3
    one, four = (fit_logistic_head(np.repeat(features, k, axis=1), targets) for k in (1, 4))
    rows = features[:, 0]
    assert one.inverse_strength == four.inverse_strength
    np.testing.assert_allclose(probabilities(one, rows), probabilities(four, rows), atol=5e-3)


def test_weights_of_whole_numbers_are_repetitions(monkeypatch):
    monkeypatch.setattr(heads, "INVERSE_STRENGTHS", (0.03,))
    features, targets = make_rows(2, 30)
    # Standardisation knows no weights, so that the features here are already standardised twice.
    weights = np.tile([1, 3, 2], 10)
    head = fit_logistic_head(features, targets, weights=weights)
    rows = (features[:, 0] - head.mean) / head.scale
    model = LogisticRegression(C=0.03, tol=1e-8, max_iter=5000)
    model.fit(np.repeat(rows, weights, axis=0), np.repeat(targets.argmax(1), weights))
    np.testing.assert_allclose(
        probabilities(head, features[:, 0]), model.predict_proba(rows), atol=5e-3
    )


@pytest.mark.parametrize("test_views", [1, 2, 3])
def test_what_is_held_out_is_judged_by_the_mean_over_its_first_views(monkeypatch, test_views):
    """As scikit-learn answers, fold by fold, which learns from all views all the same."""
    monkeypatch.setattr(heads, "INVERSE_STRENGTHS", (0.1,))
    features, targets = make_rows(3, 60)
    noise = np.random.default_rng(1).normal(0, 1, (60, 3, 6)) * 10.0 ** np.arange(6) / 100
    views = (features + noise).astype("float32")
    head = fit_logistic_head(views, targets, test_views=test_views, seed=3)
    x = ((views - head.mean) / head.scale).astype(float)
    labels, expected = targets.argmax(1), np.empty(targets.shape)
    for fit, held in heads.stratified_folds(labels, 3):
        model = LogisticRegression(C=0.1, max_iter=5000, tol=1e-8)
        rows, each = x[fit].reshape(-1, 6), np.full(3 * len(fit), 1 / 3)
        model.fit(rows, np.repeat(labels[fit], 3), sample_weight=each)
        judged = [model.decision_function(x[held, view]) for view in range(test_views)]
        expected[held] = np.mean(judged, axis=0)
    np.testing.assert_allclose(
        softmax(head.out_of_fold, axis=1), softmax(expected, axis=1), atol=2e-2
    )


def test_dead_channels_are_left_alone():
    rows = np.random.default_rng(0).normal(5, 2, (50, 4)).astype("float32")
    rows[:, 1] = 0.1
    rows[:, 2] = 7 + rows[:, 0] * 1e-9
    mean, scale = standardization(rows)
    assert scale[1] == scale[2] == 1
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)
    np.testing.assert_allclose(scale[[0, 3]], rows.std(0)[[0, 3]], rtol=1e-5)
    assert (standardization(np.zeros((3, 2), "float32"))[1] == 1).all()


@pytest.mark.parametrize("missing", [0, 2])
def test_a_class_without_an_image_is_named(missing):
    features, targets = make_rows(3)
    keep = targets.argmax(1) != missing
    with pytest.raises(ValueError, match=rf"\[{missing}\] have no training image"):
        fit_logistic_head(features[keep], targets[keep])


def test_a_class_of_one_image_leaves_no_folds_and_is_fitted_all_the_same():
    features, targets = make_rows(2, 21)
    keep = [0, *np.flatnonzero(targets[:, 1])]
    head = fit_logistic_head(features[keep], targets[keep])
    assert head.inverse_strength == 0.01


@settings(max_examples=60)
@given(
    labels=st.lists(st.integers(0, 2), min_size=4, max_size=40),
    seed=st.integers(0, 9),
    data=st.data(),
)
def test_folds_hold_every_image_out_once_and_tear_no_unit_apart(labels, seed, data):
    labels = np.array(labels)
    units = np.array(data.draw(st.lists(st.integers(0, 7), min_size=len(labels),
                                        max_size=len(labels))))  # fmt: skip
    units = np.unique(units, return_inverse=True)[1]
    folds = heads.stratified_folds(labels, seed, units)
    alone = [len(np.unique(units[labels == each])) for each in np.unique(labels)]
    if min(alone) < 2:
        assert folds == []
    for fit, held in folds:
        assert sorted([*fit, *held]) == list(range(len(labels)))
        assert not set(units[fit]) & set(units[held])
        assert set(labels[fit]) == set(labels)
    if folds:
        assert sorted(np.concatenate([held for _, held in folds])) == list(range(len(labels)))


def test_units_of_one_image_change_nothing():
    features, targets = make_rows(3, seed=2)
    plain = fit_logistic_head(features, targets, seed=1)
    same = fit_logistic_head(features, targets, seed=1, units=np.arange(len(targets)))
    np.testing.assert_array_equal(plain.out_of_fold, same.out_of_fold)


@pytest.mark.slow
def test_the_dense_head_learns_what_no_line_divides():
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (400, 2)).astype("float32") * [100, 0.01]
    targets = np.eye(2, dtype="float32")[(rows[:, 0] * rows[:, 1] > 0).astype(int)]
    config = TrainConfig(head="dense", dropout=0.0, hidden_units=64, batch_size=25)
    features = rows[:, None].astype("float32")
    head = fit_dense_head(features[:300], targets[:300], None, (rows[300:], targets[300:]), config)
    predicted = head.predict_on_batch(rows[300:]).argmax(1)
    assert (predicted == targets[300:].argmax(1)).mean() > 0.9
    linear = fit_logistic_head(features[:300], targets[:300])
    assert log_loss(targets[300:].argmax(1), probabilities(linear, rows[300:])) > 0.6


def test_the_dense_head_is_a_function_of_its_seed():
    features, targets = make_rows(2, 40)
    # Learning makes this worse at once, so that it stops early.
    valid = (features[:, 0], 1 - targets)

    def weights(seed: int) -> list[np.ndarray]:
        config = TrainConfig(head="dense", hidden_units=4, seed=seed, batch_size=20)
        return fit_dense_head(features, targets, np.ones(40), valid, config).get_weights()

    keras.utils.set_random_seed(99)
    first = weights(0)
    assert all((a == b).all() for a, b in zip(first, weights(0), strict=True))
    assert any((a != b).any() for a, b in zip(first, weights(1), strict=True))


def test_pictures_of_no_weight_are_none_to_the_dense_head():
    """Of each picture there is a copy with the wrong label; all are one batch, whatever the order.

    Twice the weight, as the loss is a mean over all rows.
    """
    features, targets = make_rows(2, 40)
    noise = np.random.default_rng(1).normal(0, 0.1, (40, 2, 6)) * 10.0 ** np.arange(6) / 100
    views = (features + noise).astype("float32")
    valid = (features[:, 0], 1 - targets)  # learning makes this worse at once: it stops early
    config = TrainConfig(head="dense", hidden_units=4, dropout=0.0, batch_size=160)
    alone = fit_dense_head(views, targets, None, valid, config)
    twice, labelled = np.concatenate([views, views]), np.concatenate([targets, 1 - targets])
    weighted = fit_dense_head(twice, labelled, np.repeat([2.0, 0.0], 40), valid, config)
    for one, other in zip(alone.get_weights(), weighted.get_weights(), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
