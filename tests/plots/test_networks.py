import numpy as np
import pytest

from safelight import plots

RNG = np.random.default_rng(0)
FIGURES = {
    "filters": lambda: plots.plot_filters(RNG.normal(size=(3, 3, 3, 20))),
    "activations": lambda: plots.plot_activations(RNG.random((7, 9, 30))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_filters_are_grey_at_zero_and_turn_caffes_order_round():
    kernels = np.zeros((3, 3, 3, 2))
    kernels[..., 0, 0] = 2.0
    first, second = (ax.images[0].get_array() for ax in plots.plot_filters(kernels).axes)
    assert np.allclose(first, [1, 0.5, 0.5])
    assert np.allclose(second, 0.5)
    turned = plots.plot_filters(kernels, channel_order="bgr").axes[0].images[0].get_array()
    assert np.allclose(turned, [0.5, 0.5, 1])
    with pytest.raises(ValueError, match="first layer"):
        plots.plot_filters(np.zeros((3, 3, 64, 8)))


def test_activations_choose_the_strongest_channels():
    activations = np.random.default_rng(0).random((4, 5, 6)) + np.array([0, 5, 1, 9, 0, 2])
    titles = [ax.get_title() for ax in plots.plot_activations(activations, channels=3).axes]
    assert titles == ["channel 3", "channel 1", "channel 5"]
    chosen = plots.plot_activations(activations, channels=[4, 0])
    assert [ax.get_title() for ax in chosen.axes] == ["channel 4", "channel 0"]
    with pytest.raises(ValueError, match="one image"):
        plots.plot_activations(np.zeros((1, 4, 4, 8)))
