import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from safelight.transfer.augmentation import BatchAugmenter, ViewMaker, turn
from safelight.transfer.config import Augmentation, TrainConfig

NONE = Augmentation(horizontal_flip=False, rotation=0.0, zoom=0.0)
EVERYTHING = Augmentation(True, True, 0.1, 0.1, 0.1, 0.2)
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 12, 10, 3)).astype("float32")
DIGESTS = [f"{i:064x}" for i in range(4)]
MIRRORS = {
    "horizontal_flip": [(), (1,)],
    "vertical_flip": [(), (0,)],
    "both": [(), (0,), (1,), (0, 1)],
}


def views_of(maker: ViewMaker, order, view: int) -> dict[int, bytes]:
    return {i: maker(IMAGES[i], DIGESTS[i], view).tobytes() for i in order}


def test_a_view_depends_on_content_number_and_seed_alone():
    first = views_of(ViewMaker(EVERYTHING, seed=3), [0, 1, 2, 3], 2)
    maker = ViewMaker(EVERYTHING, seed=3)
    views_of(maker, [2, 2, 1], 1)
    assert views_of(maker, [3, 1, 0, 2], 2) == first


def test_views_are_the_same_from_many_threads():
    maker = ViewMaker(EVERYTHING)
    alone = views_of(maker, range(4), 1)
    with ThreadPoolExecutor(4) as threads:
        jobs = {i: threads.submit(maker, IMAGES[i % 4], DIGESTS[i % 4], 1) for i in range(16)}
        assert all(job.result().tobytes() == alone[i % 4] for i, job in jobs.items())


def test_view_0_is_the_image_and_the_others_are_not():
    maker = ViewMaker(EVERYTHING)
    np.testing.assert_array_equal(maker(IMAGES[0], DIGESTS[0], 0), IMAGES[0])
    different = {maker(IMAGES[0], DIGESTS[0], view).tobytes() for view in range(6)}
    assert len(different) == 6


@pytest.mark.parametrize(
    "other",
    [
        lambda: ViewMaker(EVERYTHING, seed=1)(IMAGES[0], DIGESTS[0], 1),
        lambda: ViewMaker(EVERYTHING)(IMAGES[0], DIGESTS[0], 2),
        lambda: ViewMaker(EVERYTHING)(IMAGES[0], DIGESTS[1], 1),
        lambda: ViewMaker(dataclasses.replace(EVERYTHING, rotation=0.2))(IMAGES[0], DIGESTS[0], 1),
    ],
    ids=["seed", "view", "digest", "setting"],
)
def test_another_seed_number_content_or_setting_is_another_view(other):
    view = ViewMaker(EVERYTHING)(IMAGES[0], DIGESTS[0], 1)
    assert np.abs(other() - view).max() > 1


@pytest.mark.parametrize("kind", MIRRORS)
def test_flips_alone_give_the_image_or_a_mirror_of_it(kind):
    wanted = {"horizontal_flip": kind != "vertical_flip", "vertical_flip": "horizontal" not in kind}
    maker = ViewMaker(dataclasses.replace(NONE, **wanted))
    mirrors = [np.flip(IMAGES[0], axes).tobytes() if axes else IMAGES[0].tobytes()
               for axes in MIRRORS[kind]]  # fmt: skip
    seen = {maker(IMAGES[0], DIGESTS[0], view).tobytes() for view in range(1, 40)}
    assert seen == set(mirrors)


@pytest.mark.parametrize(
    ("setting", "max_shift", "max_stretch"),
    [({"translation": 0.25}, 5.25, 0.0), ({"zoom": 0.2}, 0.0, 0.2)],
    ids=["translation", "zoom"],
)
def test_a_ramp_moves_no_further_than_it_may(setting, max_shift, max_stretch):
    """In a picture whose value is its column, the middle tells the shift, the slope the scale."""
    size = 21
    ramp = np.tile(np.arange(size, dtype="float32")[None, :, None], (size, 1, 3))
    maker = ViewMaker(dataclasses.replace(NONE, **setting))
    rows = np.stack([maker(ramp, DIGESTS[0], view)[size // 2, 6:15, 0] for view in range(1, 40)])
    shifts, stretches = rows[:, 4] - 10, np.abs(np.diff(rows, axis=1)).mean(1) - 1
    for values, limit in ((shifts, max_shift), (stretches, max_stretch)):
        assert np.abs(values).max() <= limit + 1e-3
        assert np.ptp(values) >= 1.5 * limit


def test_a_flat_picture_survives_everything_but_contrast():
    flat = np.full((1, 12, 12, 3), 77.0, "float32")
    moving = dataclasses.replace(EVERYTHING, contrast=0.0)
    np.testing.assert_allclose(BatchAugmenter(moving)(flat, (0,)), flat, atol=1e-3)


def test_values_stay_within_a_picture_s_range():
    changed = BatchAugmenter(dataclasses.replace(NONE, contrast=0.9))(IMAGES, (5,))
    assert changed.min() >= 0
    assert changed.max() <= 255
    assert np.abs(changed - IMAGES).max() > 1


def test_a_batch_is_changed_image_by_image_and_the_key_decides():
    augmenter = BatchAugmenter(EVERYTHING)
    same = np.repeat(IMAGES[:1], 4, axis=0)
    changed = augmenter(same, (0, 1, 2))
    assert len({image.tobytes() for image in changed}) == 4
    augmenter(same, (9,))
    np.testing.assert_array_equal(augmenter(same, (0, 1, 2)), changed)
    assert np.abs(augmenter(same, (0, 1, 3)) - changed).max() > 1


def test_eight_views_of_a_square_are_its_eight_symmetries():
    """Closed under turning and mirroring, as a group is, and all different."""
    square = IMAGES[0, :10]
    maker = ViewMaker(dataclasses.replace(NONE, horizontal_flip=True, quarter_turns=True))
    views = {maker(square, DIGESTS[0], view).tobytes() for view in range(8)}

    assert len(views) == 8
    for view in range(8):
        image = maker(square, DIGESTS[0], view)
        assert np.rot90(image).tobytes() in views
        assert np.flip(image, 0).tobytes() in views
        assert np.flip(image, 1).tobytes() in views


@pytest.mark.parametrize(
    ("flags", "number"), [((0, 0, 1), 4), ((0, 1, 1), 8), ((1, 1, 0), 4), ((0, 1, 0), 2)]
)
def test_what_may_happen_says_how_many_symmetries_there_are(flags, number):
    names = ("horizontal_flip", "vertical_flip", "quarter_turns")
    what = dataclasses.replace(NONE, **dict(zip(names, map(bool, flags), strict=True)))

    assert len(set(what.symmetries)) == number
    seen = {turn(IMAGES[0], each).tobytes() for each in what.symmetries}
    mirrored = [np.flip(IMAGES[0], 1)] * flags[0] + [np.flip(IMAGES[0], 0)] * flags[1]
    assert len(seen) == number
    assert all(image.tobytes() in seen for image in mirrored)


def test_an_exact_view_knows_no_seed():
    """So its activations serve all seeds, training and test alike; a changed one does not."""
    flips = dataclasses.replace(NONE, horizontal_flip=True)
    assert ViewMaker(flips, seed=1).describe(1) == ViewMaker(flips, seed=2).describe(1)
    assert ViewMaker(flips).describe(1) != ViewMaker(flips).describe(0)
    turned = dataclasses.replace(flips, rotation=0.1)
    assert ViewMaker(turned, seed=1).describe(1) != ViewMaker(turned, seed=2).describe(1)
    assert ViewMaker(turned.exact).describe(1) == ViewMaker(flips).describe(1)


def test_batches_are_turned_by_quarters_too():
    augmenter = BatchAugmenter(dataclasses.replace(NONE, quarter_turns=True))
    square = np.repeat(IMAGES[:1, :10], 40, axis=0)
    turned = augmenter(square, (0, 1))
    kinds = {np.rot90(square[0], k).tobytes() for k in range(4)}

    assert {image.tobytes() for image in turned} == kinds
    np.testing.assert_array_equal(augmenter(square, (0, 1)), turned)
    with pytest.raises(ValueError, match="square"):
        augmenter(IMAGES, (0,))


def test_nothing_to_do_is_nothing_done():
    assert NONE.is_identity
    assert BatchAugmenter(NONE)(IMAGES, (0,)) is IMAGES


@pytest.mark.parametrize("view", [0, 1, 2])
def test_the_description_tells_views_apart_and_knows_no_settings_of_view_0(view):
    settings = [
        (EVERYTHING, 0),
        (EVERYTHING, 1),
        *((dataclasses.replace(EVERYTHING, **{f.name: 0}), 0) for f in dataclasses.fields(NONE)),
    ]
    described = [str(ViewMaker(a, seed=seed).describe(view)) for a, seed in settings]
    assert len(set(described)) == (1 if view == 0 else len(settings))


@pytest.mark.parametrize("name", ["rotation", "zoom", "translation", "contrast"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_ranges_are_fractions(name, value):
    with pytest.raises(ValueError, match=f"{name}=.* is not a fraction"):
        Augmentation(**{name: value})


@pytest.mark.parametrize("wrong", [{"views": 4}, {"test_views": 4}])
def test_more_views_than_there_are_different_ones_are_refused(wrong):
    with pytest.raises(ValueError, match="quarter_turns make more"):
        TrainConfig(**{"views": 2, **wrong})
    TrainConfig(views=4, test_views=4, vertical_flip=True)
    assert TrainConfig(views=9, zoom=0.1).views == 9
