import numpy as np
import pytest

from safelight import plots


def history(num_epochs):
    keys = ("loss", "val_loss", "accuracy", "val_accuracy")
    return {key: np.linspace(0.9, 0.1, num_epochs) for key in keys}


def elbo_history(num_epochs):
    epochs = np.arange(num_epochs)
    elbo, kl = (
        -100 - 400 * np.exp(-2 * epochs) - 8 * np.exp(-epochs / 20),
        np.full(num_epochs, 25.0),
    )
    terms = {"elbo": elbo, "reconstruction": elbo + kl, "kl": kl}
    return terms | {f"val_{key}": values - 1 for key, values in terms.items()}


GAME = {
    "real_accuracy": [0.9, 0.8, 0.75],
    "fake_accuracy": [0.95, 0.8, 0.7],
    "generator_loss": [2.0, 1.0, 0.8],
    "discriminator_loss": [0.4, 1.1, 1.3],
    "diversity": [0.2, float("nan"), 1.0],
}
FIGURES = {
    "a game": lambda: plots.plot_game_history(GAME),
    "a game of one epoch": lambda: plots.plot_game_history({"generator_loss": [1.0]}),
    "history": lambda: plots.plot_history(history(20)),
    "one epoch": lambda: plots.plot_history(history(1)),
    "ELBO": lambda: plots.plot_elbo_history(elbo_history(60)),
    "ELBO of one epoch": lambda: plots.plot_elbo_history(elbo_history(1)),
    "ELBO alone": lambda: plots.plot_elbo_history({"val_elbo": [-500, np.nan, -100]}),
    "loss only": lambda: plots.plot_history({"loss": [0.3, np.nan, 0.2]}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_picture_is_drawn_without_a_warning_and_inside_its_frame(name, assert_whole):
    assert_whole(FIGURES[name]())


def test_history_shows_the_numbers_and_the_best_epoch():
    figure = plots.plot_history({"loss": [3, 2, 1], "val_loss": [3, 1, 2], "accuracy": [0, 0.5, 1]})
    loss, accuracy = figure.axes
    training, validation, best = loss.lines
    assert training.get_ydata().tolist() == [3, 2, 1]
    assert validation.get_ydata().tolist() == [3, 1, 2]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (2, 1)
    assert accuracy.lines[0].get_ydata().tolist() == [0, 50, 100]
    assert accuracy.get_ylabel() == "accuracy (%)"
    counted = {"epoch": [0.0, 1.0, 2.0], "val_loss": [3, 1, 2]}  # 0 is the head before fine-tuning
    (loss,) = plots.plot_history(counted).axes
    assert loss.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert (loss.lines[1].get_xdata()[0], loss.lines[1].get_label()) == (1, "best epoch: 1")
    with pytest.raises(ValueError, match="'lr'"):
        plots.plot_history({"lr": [1]})
    with pytest.raises(ValueError, match="epoch"):
        plots.plot_history({"loss": []})


def test_elbo_history_shows_the_three_terms_and_their_last_numbers(texts):
    terms = {"elbo": [-9, -6], "reconstruction": [-8.5, -4], "kl": [0.5, 2], "epoch": [3, 4]}
    figure = plots.plot_elbo_history(terms | {"val_elbo": [-9, -7.25], "lr": [1, 1]})
    assert [ax.lines[0].get_ydata().tolist() for ax in figure.axes] == [
        [-9, -6],
        [-8.5, -4],
        [0.5, 2],
    ]
    assert figure.axes[0].lines[0].get_xdata().tolist() == [3, 4]
    assert {ax.get_ylabel() for ax in figure.axes} == {"nats per image"}
    for number in ("−7.2", "−4.0", "2.0"):
        assert number in texts(figure)
    assert not any("not shown" in text for text in texts(figure))
    with pytest.raises(ValueError, match="'loss'"):
        plots.plot_elbo_history({"loss": [1]})
    with pytest.raises(ValueError, match="epoch"):
        plots.plot_elbo_history({"elbo": []})


def test_elbo_history_leaves_far_first_epochs_out_and_says_so():
    history = elbo_history(60)
    ax = plots.plot_elbo_history(history).axes[0]
    low, high = ax.get_ylim()
    late = np.concatenate([history["elbo"][6:], history["val_elbo"][6:]])
    assert low < late.min() < late.max() < high
    assert high - low < 2 * np.ptp(late)
    assert ax.get_title().endswith("not shown: the first epochs, from −509.0")
    # Where nothing is far off, nothing is left out.
    ax = plots.plot_elbo_history({"elbo": np.linspace(-120, -100, 30)}).axes[0]
    assert ax.get_ylim()[0] < -120
    assert "not shown" not in ax.get_title()


def test_epochs_without_validation_leave_no_hole_in_the_curve():
    ax = plots.plot_elbo_history({"val_elbo": [np.nan, -3, np.nan, -1]}).axes[0]
    assert ax.lines[0].get_xdata().tolist() == [2, 4]
    assert ax.lines[0].get_ydata().tolist() == [-3, -1]
