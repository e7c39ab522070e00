import types

import numpy as np
import pytest
from scipy import stats

from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.latent_paths import (
    interpolate,
    latent_manifold,
    linear_path,
    prior_quantiles,
    spherical_path,
    traverse,
    units_by_kl,
)
from safelight.vae.priors import Mixture, StandardNormal


def identity(latent_dim: int) -> types.SimpleNamespace:
    """A model whose pictures are its latents."""
    return types.SimpleNamespace(
        latent_dim=latent_dim,
        visible_dim=latent_dim,
        prior=StandardNormal(),
        decode=lambda z, labels: z.reshape(-1, 1, latent_dim, 1),
    )


def test_arcs_keep_norm_and_pace_and_both_paths_their_ends():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 7))
    b *= np.linalg.norm(a, axis=1, keepdims=True) / np.linalg.norm(b, axis=1, keepdims=True)
    for path in (linear_path, spherical_path):
        points = path(a, b, 9)
        assert points.shape == (5, 9, 7)
        np.testing.assert_array_equal(points[:, 0], a.astype("float32"))
        np.testing.assert_array_equal(points[:, -1], b.astype("float32"))
    norms = np.linalg.norm(points, axis=-1)
    np.testing.assert_allclose(norms, np.repeat(norms[:, :1], 9, axis=1), rtol=1e-6)
    cosines = (points[:, 1:] * points[:, :-1]).sum(-1) / norms[:, 1:] / norms[:, :-1]
    np.testing.assert_allclose(cosines, np.repeat(cosines[:, :1], 8, axis=1), rtol=1e-5)


def test_arcs_between_unequal_norms_and_along_one_direction():
    quarter = spherical_path([2.0, 0.0], [0.0, 4.0], 3)
    np.testing.assert_allclose(quarter[1], 3 * np.sqrt([0.5, 0.5]), rtol=1e-6)
    a = np.array([1.0, 2.0])
    np.testing.assert_allclose(spherical_path(a, 3 * a, 3)[1], 2 * a, rtol=1e-6)
    np.testing.assert_allclose(spherical_path(a, a, 3), np.tile(a, (3, 1)), rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "num", "message"),
    [
        ([1, 0], [-2, 0], 3, "opposite"),
        ([0, 0], [1, 0], 3, "origin"),
        ([1, 0], [1, 0, 0], 3, "shapes"),
        ([1, 0], [0, 1], 1, "num=1"),
    ],
)
def test_arcs_that_do_not_exist_are_refused(a, b, num, message):
    with pytest.raises(ValueError, match=message):
        spherical_path(a, b, num)


def test_interpolate_decodes_the_path():
    a, b = np.eye(3)[:2]
    pictures = interpolate(identity(3), a, b, num=5)
    assert pictures.shape == (5, 1, 3, 1)
    np.testing.assert_allclose(pictures[2].ravel(), [0.5, 0.5, 0], rtol=1e-6)
    batch = interpolate(identity(3), np.stack([a, b]), np.stack([b, a]), num=4, spherical=True)
    np.testing.assert_allclose(batch[0], batch[1, ::-1], atol=1e-6)


def test_traverse_moves_one_unit_at_a_time_the_fullest_first():
    start, kl = np.array([0.5, -0.5, 0.25]), [0.1, 3.0, 1.0]
    np.testing.assert_array_equal(units_by_kl(kl), [1, 2, 0])
    z = traverse(identity(3), start, kl_per_unit=kl, num_units=2, num=5, reach=2)[:, :, 0, :, 0]
    np.testing.assert_allclose(z[0, :, 1], [-2, -1, 0, 1, 2])
    np.testing.assert_allclose(z[1, :, 2], [-2, -1, 0, 1, 2])
    np.testing.assert_allclose(np.delete(z[0], 1, axis=1), np.tile(start[[0, 2]], (5, 1)))
    assert traverse(identity(3), start, kl_per_unit=kl).shape[:2] == (3, 9)
    with pytest.raises(ValueError, match=r"start of shape \(2,\): expected \(3,\)"):
        traverse(identity(3), start[:2], kl_per_unit=kl)


def test_the_manifold_is_spaced_by_equal_shares_of_the_prior():
    z = latent_manifold(identity(2), num=4)[:, :, 0, :, 0]
    shares = stats.norm.cdf(z)
    np.testing.assert_allclose(shares[0, :, 0], [0.125, 0.375, 0.625, 0.875], rtol=1e-5)
    np.testing.assert_allclose(shares[:, 2, 1], [0.875, 0.625, 0.375, 0.125], rtol=1e-5)
    fullest = latent_manifold(identity(4), num=3, kl_per_unit=[0, 1, 0.5, 2])[:, :, 0, :, 0]
    assert np.ptp(fullest, axis=(0, 1)).tolist() == pytest.approx([0, 1.9348, 0, 1.9348], abs=1e-3)
    assert np.ptp(fullest[0, :, 3]) > 0
    with pytest.raises(ValueError, match="pass kl_per_unit"):
        latent_manifold(identity(4))
    with pytest.raises(ValueError, match="one latent unit"):
        latent_manifold(identity(1))


def test_walks_through_a_real_model_give_its_pictures():
    config = TrainConfig(latent_dim=3, hidden_units=(8,), conditional=True, precision="float32")
    model = build_vae((5, 3, 1), config, num_classes=4)
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 3, 1), dtype="uint8")
    mean, _ = model.encode(images, np.array([1, 2]))
    pictures = interpolate(model, *mean, num=3, label=2)
    np.testing.assert_allclose(pictures[2], model.decode(mean[1:], np.array([2]))[0], atol=1e-6)
    report_like = np.array([1.0, 0.5, 2.0])
    assert traverse(model, mean[0], kl_per_unit=report_like, num=3, label=0).shape == (
        *(3, 3),
        *model.image_shape,
    )


def test_walks_follow_a_learned_prior_and_leave_out_what_the_decoder_does_not_see():
    prior = Mixture(1)
    prior.connect(None, 3)
    prior.set_weights([np.array([[4.0, -1.0, 0.5]]), np.log([[0.25, 1.0, 4.0]]), np.zeros(1)])
    model = identity(3)
    model.prior, model.visible_dim = prior, 2
    found = prior_quantiles(model, [0.1, 0.5, 0.9])
    expected = stats.norm([4.0, -1.0, 0.5], [0.5, 1.0, 2.0]).ppf(np.array([[0.1], [0.5], [0.9]]))
    np.testing.assert_allclose(found, expected, atol=0.12)
    rows = traverse(model, np.zeros(3), kl_per_unit=[1.0, 2.0, 9.0], num=3, reach=1)
    assert rows.shape[:2] == (2, 3)  # the third unit has most, and nothing shows it
    np.testing.assert_allclose(rows[0, :, 0, 1, 0], [-2, -1, 0], atol=0.1)
    plane = latent_manifold(model, num=2, kl_per_unit=[1.0, 2.0, 9.0])[:, :, 0, :, 0]
    np.testing.assert_allclose(plane[..., 2], 0.5, atol=0.1)
    np.testing.assert_allclose(plane[0, :, 1], -1 + np.array([-0.674, 0.674]), atol=0.1)
