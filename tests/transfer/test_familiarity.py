import dataclasses

import numpy as np
import pytest

from safelight.transfer.familiarity import NUM_NEIGHBORS, Familiarity, fit_familiarity


def draw(number: int, seed: int, *, width: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).gamma(2.0, size=(number, width)).astype("float32")


def brute_force(rows: np.ndarray, references: np.ndarray, widths) -> np.ndarray:
    """The definition, one pair at a time."""

    def scaled(row):
        parts = np.split(np.sqrt(row.astype(np.float64)), np.cumsum(widths)[:-1])
        return np.concatenate([part / np.sqrt((part**2).sum()) for part in parts])

    found = []
    for row in rows:
        far = sorted(np.sqrt(((scaled(row) - scaled(r)) ** 2).sum()) for r in references)
        found.append(np.mean(far[:NUM_NEIGHBORS]))
    return np.array(found)


@pytest.mark.parametrize("widths", [(12,), (4, 8)])
def test_distances_are_those_of_the_definition(widths):
    known = fit_familiarity(draw(40, 0), widths=widths)
    rows = draw(7, 1)
    # References are kept in half precision: three digits.
    np.testing.assert_allclose(
        known.distances(rows), brute_force(rows, draw(40, 0), widths), rtol=5e-3, atol=1e-3
    )


def test_hellinger_distance_of_two_shares():
    """Roots of shares: the squared distance is 2 - 2 sum sqrt(p q)."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.1, 0.3, 0.6])
    known = fit_familiarity(np.tile(10 * p, (10, 1)))
    expected = np.sqrt(2 - 2 * np.sqrt(p * q).sum())
    np.testing.assert_allclose(known.distances([7 * q]), expected, rtol=1e-3)


def test_brightness_does_not_matter():
    known, rows = fit_familiarity(draw(30, 0), widths=(5, 7)), draw(6, 1)
    scaled = rows * np.array([3.0] * 5 + [0.2] * 7, "float32")
    np.testing.assert_allclose(known.distances(rows), known.distances(scaled), rtol=1e-4)


def test_p_values_of_familiar_pictures_are_uniform():
    """Over many experiments, as each has only so many pictures to set the scale."""
    refused = []
    for seed in range(40):
        known = fit_familiarity(draw(200, 2 * seed), seed=seed)
        refused.append((known.p_values(draw(200, 2 * seed + 1)) <= 0.1).mean())
    # Calibrating folds have four fifths of the references, so their distances are a bit larger.
    assert 0.06 < np.mean(refused) < 0.115


def test_foreign_pictures_are_refused():
    """Other channels are active than in any picture learned from."""
    known = fit_familiarity(draw(200, 0))
    foreign = draw(100, 1) * np.array([30.0] * 2 + [0.1] * 10, "float32")
    assert (known.p_values(foreign) <= 0.05).all()
    assert known.p_values(foreign).min() == pytest.approx(1 / 201)


def test_a_rate_that_refuses_nothing_is_a_sentence():
    known = fit_familiarity(draw(19, 0))
    known.check_rate(0.05)
    with pytest.raises(ValueError, match=r"0\.04 refuses nothing.*19 pictures.*0\.05"):
        known.check_rate(0.04)


def test_held_out_pictures_set_the_scale():
    """A network that has learned its pictures by heart sees them nearer than any other."""
    learned, others = draw(50, 0), draw(60, 1)
    known = fit_familiarity(learned, held_out=others)
    np.testing.assert_allclose(known.calibration, np.sort(known.distances(others)))


def test_copies_do_not_make_new_pictures_unfamiliar():
    units = np.repeat(np.arange(60), 4)
    likes = draw(60, 0)[units] * np.random.default_rng(1).normal(1, 0.01, (240, 12))
    refused = {
        name: (fit_familiarity(likes, units=of).p_values(draw(200, 2)) <= 0.05).mean()
        for name, of in {"each for itself": None, "together": units}.items()
    }
    assert refused["each for itself"] > 0.8
    assert refused["together"] < 0.2
    with pytest.raises(ValueError, match="4 units"):
        fit_familiarity(likes, units=units % 4)


def test_a_file_brings_back_the_same(tmp_path):
    known = fit_familiarity(draw(20, 0), widths=(5, 7))
    path = tmp_path / "familiarity.npz"
    path.write_bytes(known.to_bytes())
    back = Familiarity.read(path)
    for name, value in dataclasses.asdict(known).items():
        np.testing.assert_array_equal(getattr(back, name), value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"12345"])
def test_a_damaged_file_is_a_sentence(tmp_path, content):
    path = tmp_path / "familiarity.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"\.npz is damaged \(.*zip.*\): train the run again\.$"):
        Familiarity.read(path)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"calibration": np.array([0.2, 0.1])}, "its distances do not rise"),
        ({"widths": np.array([5, 6])}, r"12 features in layers of \[5, 6\]"),
    ],
)
def test_arrays_that_do_not_fit_each_other_are_a_sentence(tmp_path, changed, said):
    path, known = tmp_path / "familiarity.npz", fit_familiarity(draw(20, 0), widths=(5, 7))
    path.write_bytes(dataclasses.replace(known, **changed).to_bytes())
    with pytest.raises(ValueError, match=rf"\.npz is damaged \({said}\): train the run again\.$"):
        Familiarity.read(path)


def test_a_missing_file_is_a_sentence(tmp_path):
    expected = r"\.npz is not there, .*: expected a run that `transfer train` made .* 10 pictures\."
    with pytest.raises(ValueError, match=expected):
        Familiarity.read(tmp_path / "familiarity.npz")


def test_too_few_pictures_and_other_features_are_refused():
    with pytest.raises(ValueError, match="10 or more"):
        fit_familiarity(draw(9, 0))
    with pytest.raises(ValueError, match=r"expected \(..., 12\)"):
        fit_familiarity(draw(10, 0)).distances(draw(3, 0, width=11))
    with pytest.raises(ValueError, match=r"expected \(..., 9\)"):
        fit_familiarity(draw(10, 0), widths=(4, 5))


def test_the_nearest_are_those_that_the_distance_is_the_mean_of():
    known = fit_familiarity(draw(40, 0), widths=(4, 8))
    for row in draw(5, 1):
        rows, distances = known.nearest(row, NUM_NEIGHBORS)
        assert len(set(rows.tolist())) == NUM_NEIGHBORS
        np.testing.assert_allclose(distances.mean(), known.distances([row])[0], rtol=1e-3)
        assert (np.diff(distances) >= 0).all()


def test_a_picture_learned_from_is_nearest_to_itself():
    learned = draw(40, 0)
    known = fit_familiarity(learned)
    assert [known.nearest(row, 1)[0][0] for row in learned] == list(range(40))
    assert len(known.nearest(learned[0], 99)[0]) == 40
