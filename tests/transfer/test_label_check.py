"""Wrong labels that were planted are found again, and few others are accused."""

import numpy as np
import pytest

from safelight.transfer.calibration import fit_temperature
from safelight.transfer.heads import fit_logistic_head
from safelight.transfer.kernel_heads import fit_kernel_head
from safelight.transfer.label_check import find_suspects


def test_planted_mistakes_are_found_and_few_others():
    rng = np.random.default_rng(0)
    truth = np.arange(400) % 3
    features = 4 * np.eye(3)[truth] @ rng.normal(0, 1, (3, 12)) + rng.normal(0, 1, (400, 12))
    labels, planted = truth.copy(), rng.choice(400, 20, replace=False)
    labels[planted] = (truth[planted] + rng.integers(1, 3, 20)) % 3
    targets = np.eye(3, dtype="float32")[labels]
    logits = fit_logistic_head(features[:, None].astype("float32"), targets).out_of_fold

    suspects = find_suspects(labels, logits / fit_temperature(logits, labels))

    found = {suspect.index for suspect in suspects}
    assert len(found & set(planted)) >= 18
    assert len(found - set(planted)) <= 4
    for suspect in suspects:
        assert suspect.label == labels[suspect.index]
        if suspect.index in planted:
            assert suspect.prediction == truth[suspect.index]


@pytest.mark.parametrize("fit", [fit_logistic_head, fit_kernel_head])
def test_a_mistake_that_is_there_twice_is_found_as_well(fit):
    """Its copy, which has the same wrong label, must not speak for it."""
    rng = np.random.default_rng(0)
    truth = np.arange(120) % 3
    features = 4 * np.eye(3)[truth] @ rng.normal(0, 1, (3, 12)) + rng.normal(0, 1, (120, 12))
    labels, planted = truth.copy(), rng.choice(120, 10, replace=False)
    labels[planted] = (truth[planted] + 1) % 3
    rows = np.repeat(np.abs(features)[:, None].astype("float32"), 2, axis=0)
    labels, units = np.repeat(labels, 2), np.repeat(np.arange(120), 2)
    targets = np.eye(3, dtype="float32")[labels]
    found = {}
    for name, told in (("told", units), ("not told", None)):
        logits = fit(rows, targets, units=told).out_of_fold
        suspects = find_suspects(labels, logits / fit_temperature(logits, labels), doubt=0.3)
        found[name] = {units[suspect.index] for suspect in suspects} & set(planted.tolist())
    assert len(found["told"]) >= 7
    assert len(found["not told"]) < len(found["told"])


def test_the_least_probable_label_comes_first_and_agreement_is_no_suspicion():
    logits = np.log([[0.99, 0.01], [0.999, 0.001], [0.5, 0.5], [0.02, 0.98]])
    found = find_suspects([1, 1, 1, 1], logits)

    assert [suspect.index for suspect in found] == [1, 0]
    np.testing.assert_allclose([s.probability for s in found], [0.001, 0.01], rtol=1e-6)
    assert find_suspects([0, 0, 0, 1], logits) == ()


@pytest.mark.parametrize(("labels", "doubt"), [([0, 1], 0.1), ([0], 0), ([0], 1)])
def test_what_does_not_fit_is_refused(labels, doubt):
    with pytest.raises(ValueError, match="expected"):
        find_suspects(labels, np.zeros((1, 2)), doubt=doubt)
