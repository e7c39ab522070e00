import numpy as np
from keras import ops

from safelight.generative import noise


def test_an_epoch_s_order_has_every_image_and_follows_from_seed_and_epoch():
    order = noise.epoch_order(7, 2, 10, 4)
    assert order.shape == (3, 4)
    assert sorted(order.ravel()[:10]) == list(range(10))
    assert list(order.ravel()[10:]) == list(order.ravel()[:2])
    np.testing.assert_array_equal(order, noise.epoch_order(7, 2, 10, 4))
    assert (order != noise.epoch_order(7, 3, 10, 4)).any()
    assert (order != noise.epoch_order(8, 2, 10, 4)).any()


def test_the_generators_are_marsaglia_s_on_unsigned_numbers():
    states = noise.noise_states((4, 5), 0, 1, 2)
    wanted = states.view("uint32").copy()
    for _ in range(3):
        states = ops.convert_to_numpy(noise.next_states(ops.convert_to_tensor(states)))
        wanted ^= wanted << np.uint32(13)
        wanted ^= wanted >> np.uint32(17)
        wanted ^= wanted << np.uint32(5)
        np.testing.assert_array_equal(states.view("uint32"), wanted)


def test_pixels_are_white_as_often_as_their_grey_value_says():
    """All 256 values, within four standard errors; and neither in space nor time do they cling."""
    images = np.arange(256, dtype="uint8").reshape(1, 16, 16, 1).repeat(500, 0)
    states = ops.convert_to_tensor(noise.noise_states((500, 128), 0))
    draws = []
    for _ in range(8):
        states = noise.next_states(states)
        draws.append(ops.convert_to_numpy(noise.draw_binary(images, states)))
    draws = np.stack(draws).reshape(8, 500, 256)
    p, num = np.arange(256) / 255, draws[..., 0].size
    error = np.abs(draws.mean((0, 1)) - p)
    assert (error <= 4 * np.sqrt(p * (1 - p) / num)).all()
    score = (draws - p)[..., 64:192] / np.sqrt(p * (1 - p))[64:192]
    for first, second in (
        (score[:-1], score[1:]),  # the same pixel, one step later
        (score[:, :-1], score[:, 1:]),  # the same pixel of the next image
        (score[..., :-1], score[..., 1:]),  # the pixel beside it
        (score[..., :64], score[..., 64:]),
    ):
        assert abs((first * second).mean()) < 4 / np.sqrt(first.size)


def test_an_odd_number_of_pixels_is_drawn_too():
    images = np.full((2, 5, 3, 1), 255, "uint8")
    drawn = ops.convert_to_numpy(noise.draw_binary(images, noise.noise_states((2, 8), 1)))
    assert drawn.shape == images.shape
    assert (drawn == 1).all()
    assert not ops.convert_to_numpy(
        noise.draw_binary(0 * images, noise.noise_states((2, 8), 1))
    ).any()


def test_normal_draws_have_the_moments_of_the_normal_distribution():
    states, draws = ops.convert_to_tensor(noise.noise_states((2, 100, 4), 5)), []
    for _ in range(200):
        states = noise.next_states(states)
        draws.append(ops.convert_to_numpy(noise.draw_normal(states, 7)))
    z = np.stack(draws)
    assert z.shape == (200, 100, 7)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((z**power).mean() - moment) < 4 * np.sqrt(variance / z.size)
    correlation = np.corrcoef(z.reshape(-1, 7).T)
    assert np.abs(correlation - np.eye(7)).max() < 4 / np.sqrt(len(z) * 100)
    assert abs((z[1:] * z[:-1]).mean()) < 4 / np.sqrt(z.size)
