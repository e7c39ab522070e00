"""Distances of generated from real pictures, against closed forms and brute force."""

import numpy as np
import pytest
from scipy import linalg

from safelight import sample_quality
from safelight.sample_quality import compare_neighbourhoods, frechet_distance


def random_covariance(rng, size):
    root = rng.normal(size=(size, size))
    return root @ root.T


def test_the_distance_of_diagonal_gaussians_is_that_of_means_and_deviations():
    mean, other = np.array([1.0, -2.0, 0.5]), np.array([0.0, 1.0, 0.5])
    deviation, wider = np.array([1.0, 2.0, 0.0]), np.array([3.0, 2.0, 1.0])
    found = sample_quality.frechet_distance_of_gaussians(
        mean, np.diag(deviation**2), other, np.diag(wider**2)
    )
    expected = np.square(mean - other).sum() + np.square(deviation - wider).sum()
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_distance_agrees_with_the_matrix_square_root():
    rng = np.random.default_rng(0)
    first, second = random_covariance(rng, 5), random_covariance(rng, 5)
    mean, other = rng.normal(size=(2, 5))
    root = linalg.sqrtm(first @ second).real
    expected = np.square(mean - other).sum() + np.trace(first + second - 2 * root)
    found = sample_quality.frechet_distance_of_gaussians(mean, first, other, second)
    assert found == pytest.approx(expected, rel=1e-8)


def test_equal_features_have_distance_zero_even_if_they_span_a_plane_only():
    rows = np.random.default_rng(0).normal(size=(50, 2)) @ np.ones((2, 6))
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)


def test_a_shift_costs_its_square_and_the_order_does_not_matter():
    rng = np.random.default_rng(0)
    rows, shift = rng.normal(size=(100, 4)), np.array([3.0, 0.0, -1.0, 2.0])
    assert frechet_distance(rows, rows + shift) == pytest.approx(shift @ shift, rel=1e-6)
    others = 2 * rng.normal(size=(80, 4))
    assert frechet_distance(rows, others) == pytest.approx(frechet_distance(others, rows))


def test_the_estimate_comes_nearer_to_the_truth_with_more_pictures():
    rng = np.random.default_rng(0)
    few, many = (
        np.mean([frechet_distance(*rng.normal(size=(2, n, 8))) for _ in range(20)])
        for n in (50, 800)
    )
    assert 0 < many < few / 8  # the bias of equal distributions falls with 1 / n


def brute_force(real, fake, k):
    def apart(a, b):
        return np.linalg.norm(a - b)

    def reach(rows):
        return [sorted(apart(row, other) for other in rows)[k] for row in rows]

    of_real, of_fake = reach(real), reach(fake)
    hits = [[apart(f, r) <= radius for r, radius in zip(real, of_real, strict=True)] for f in fake]
    found = [[apart(f, r) <= radius for f, radius in zip(fake, of_fake, strict=True)] for r in real]
    return {
        "precision": np.mean([any(row) for row in hits]),
        "recall": np.mean([any(row) for row in found]),
        "density": np.sum(hits) / (k * len(fake)),
        "coverage": np.mean(np.any(hits, axis=0)),
    }


@pytest.mark.parametrize("k", [1, 3])
def test_neighbourhoods_agree_with_brute_force(monkeypatch, k):
    monkeypatch.setattr(sample_quality, "_ROWS", 7)
    rng = np.random.default_rng(k)
    real, fake = rng.normal(size=(40, 3)), 0.7 * rng.normal(size=(31, 3)) + 0.5
    found = compare_neighbourhoods(real, fake, num_neighbours=k)
    expected = brute_force(real, fake, k)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected)
    assert 0 < found.recall < 1


def test_a_model_that_draws_one_kind_is_precise_and_recalls_half():
    rng = np.random.default_rng(0)
    kinds = np.repeat([[0.0, 0.0], [100.0, 0.0]], 200, axis=0)
    real = kinds + rng.normal(size=kinds.shape)
    fake = rng.normal(size=(400, 2))
    found = compare_neighbourhoods(real, fake)
    assert found.precision > 0.9
    assert 0.4 < found.recall <= 0.5
    assert found.coverage <= 0.5
    noise = compare_neighbourhoods(real, rng.normal(size=(400, 2)) + 1000)
    assert (noise.precision, noise.recall, noise.coverage) == (0, 0, 0)


@pytest.mark.parametrize(
    ("real", "fake", "message"),
    [
        (np.zeros((9, 3)), np.zeros((9, 4)), r"\(9, 3\) and \(9, 4\)"),
        (np.zeros(9), np.zeros((9, 4)), r"\(9,\) and \(9, 4\)"),
        (np.zeros((1, 3)), np.zeros((9, 3)), "1 real and 9 generated pictures: expected at least"),
        (np.full((9, 3), np.nan), np.zeros((9, 3)), "not finite"),
    ],
)
@pytest.mark.parametrize("function", [frechet_distance, compare_neighbourhoods])
def test_features_that_cannot_be_compared_are_refused(function, real, fake, message):
    with pytest.raises(ValueError, match=message):
        function(real, fake)


def test_the_kernel_distance_is_the_u_statistic_of_all_pairs():
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(7, 3)), rng.normal(0.5, 1.5, size=(5, 3))

    def kernel(a, b):
        return (a @ b / 3 + 1) ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j])
        for rows in (real, fake)
    ]
    between = np.mean([kernel(a, b) for a in real for b in fake])
    found = sample_quality.kernel_distance(real, fake)
    assert found.value == pytest.approx(sum(within) - 2 * between)


def test_the_kernel_distance_has_no_bias_and_an_honest_error():
    rng, shift = np.random.default_rng(1), np.array([1, 0, 0, 0])
    found = [
        sample_quality.kernel_distance(rng.normal(size=(60, 4)), rng.normal(shift, size=(90, 4)))
        for _ in range(200)
    ]
    values = np.array([each.value for each in found])
    many = sample_quality.kernel_distance(
        rng.normal(size=(2000, 4)), rng.normal(shift, size=(2000, 4))
    )
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - many.value) < 4 * np.hypot(error, many.standard_error)
    assert np.mean([each.standard_error for each in found]) == pytest.approx(values.std(), rel=0.3)


def test_the_jackknife_takes_the_frechet_distance_s_bias_off():
    rng = np.random.default_rng(2)
    scale = np.linspace(0.5, 2, 6)
    truth = sample_quality.frechet_distance_of_gaussians(
        np.zeros(6), np.eye(6), np.full(6, 0.3), np.diag(scale**2)
    )
    found = [
        sample_quality.estimate_frechet_distance(
            rng.normal(size=(120, 6)), 0.3 + scale * rng.normal(size=(160, 6)), seed=seed
        )
        for seed in range(60)
    ]
    values = np.array([each.value for each in found])
    plain = np.array([each.plain for each in found])
    error = values.std() / np.sqrt(len(values))
    assert plain.mean() - truth > 5 * error  # the bias that there is
    assert abs(values.mean() - truth) < 4 * error
    inside = [low <= truth <= high for low, high in (each.interval for each in found)]
    assert np.mean(inside) > 0.85


def test_of_the_same_distribution_the_estimates_are_about_zero():
    rng = np.random.default_rng(3)
    real, fake = rng.normal(size=(2, 400, 5))
    for found in (
        sample_quality.estimate_frechet_distance(real, fake),
        sample_quality.kernel_distance(real, fake),
    ):
        assert abs(found.value) < 4 * found.standard_error


def test_too_few_pictures_for_the_blocks_are_refused():
    rows = np.random.default_rng(4).normal(size=(10, 2))
    with pytest.raises(ValueError, match="10 real and 10 generated pictures: expected at least 20"):
        sample_quality.estimate_frechet_distance(rows, rows)
    with pytest.raises(ValueError, match="num_blocks=1: expected 2 or more"):
        sample_quality.estimate_frechet_distance(rows, rows, num_blocks=1)
