import numpy as np
import pytest
from keras import ops
from PIL import Image

from safelight import plots
from safelight.vae import album, live
from safelight.vae.building import build_vae
from safelight.vae.config import TrainConfig
from safelight.vae.evaluation import evaluate
from safelight.vae.live import LiveView
from safelight.vae.loops import EpochLoop
from safelight.vae.planes import Plane
from safelight.vae.training import train

SHAPE = (4, 3, 1)
CONFIG = TrainConfig(
    latent_dim=3, hidden_units=(8,), epochs=3, batch_size=8, learning_rate=0.02, seed=1
)


def make_images(num=30):
    rng = np.random.default_rng(0)
    kinds = rng.integers(30, 226, (2, *SHAPE))
    return kinds[rng.integers(0, 2, num)].astype("uint8")


def weights(model):
    return [np.array(ops.convert_to_numpy(v)) for v in model.trainable_variables]


@pytest.fixture
def always(monkeypatch):
    """Every moment is kept, however long it takes."""
    monkeypatch.setattr(live._Share, "spend", lambda self, act, due=False: act())


def test_a_training_that_is_watched_ends_with_the_same_weights(always):
    images = make_images()
    alone, watched = (build_vae(SHAPE, CONFIG) for _ in range(2))
    train(alone, images, config=CONFIG)
    train(watched, images, config=CONFIG, callback=LiveView(images))
    for a, b in zip(weights(alone), weights(watched), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_first_frame_is_the_model_before_its_training_and_the_last_one_after_it(always):
    images, model, view = make_images(), build_vae(SHAPE, CONFIG), LiveView(make_images(12))
    before, drawn_before = model.encode(images[:12])[0], model.sample(30)
    trained = train(model, images, config=CONFIG, callback=view)
    first, last = view.frames[0], view.frames[-1]
    assert (first.epochs, last.epochs) == (0, 3)
    assert first.seconds < last.seconds <= trained.seconds["training"] + 1
    np.testing.assert_allclose(first.means, before, atol=2e-3)
    np.testing.assert_allclose(last.means, model.encode(images[:12])[0], atol=2e-3)
    for frame, drawn in ((first, drawn_before), (last, model.sample(30))):
        np.testing.assert_allclose(frame.samples.reshape(drawn.shape) / 255, drawn, atol=0.003)
    np.testing.assert_allclose(
        last.reconstructions / 255, model.reconstruct(images[:10]), atol=0.003
    )
    assert last.elbo == pytest.approx(model.elbo(images[:12], seed=0)["elbo"].mean(), rel=1e-5)
    assert [frame.epochs for frame in view.frames] == sorted(frame.epochs for frame in view.frames)


@pytest.mark.one_backend
def test_a_conditional_model_is_told_the_labels(always):
    config = TrainConfig(**{**vars(CONFIG), "conditional": True})
    images, labels = make_images(), np.arange(30) % 2
    model, view = build_vae(SHAPE, config, num_classes=2), LiveView(images, labels)
    train(model, (images, labels), config=config, callback=view)
    asked = np.arange(30) % 2
    drawn = model.sample(30, labels=asked)
    np.testing.assert_allclose(
        view.frames[-1].samples.reshape(drawn.shape) / 255, drawn, atol=0.003
    )
    assert view.figure() is not None


@pytest.mark.one_backend
def test_too_many_frames_become_half_as_many_but_the_ends_stay(always, monkeypatch):
    monkeypatch.setattr(live, "MAX_FRAMES", 4)
    config = TrainConfig(**{**vars(CONFIG), "epochs": 12})
    view = LiveView(make_images())
    train(build_vae(SHAPE, config), make_images(), config=config, callback=view)
    assert 2 <= len(view.frames) <= 4
    assert (view.frames[0].epochs, view.frames[-1].epochs) == (0, 12)


def test_keeping_frames_takes_no_more_than_its_share_of_the_time(monkeypatch):
    now, kept = [0.0], []
    monkeypatch.setattr(live.time, "perf_counter", lambda: now[0])
    share = live._Share(0.1)

    def act():
        kept.append(now[0])
        now[0] += 0.5

    for _ in range(10_000):
        share.spend(act)
        now[0] += 0.01
    # The first does not count, and the last one's share is still to come.
    assert 0.08 * now[0] < 0.5 * (len(kept) - 2) <= 0.1 * now[0]
    share.spend(act, due=True)
    assert kept[-1] == now[0] - 0.5


@pytest.mark.one_backend
def test_a_diverging_training_leaves_no_frame_that_is_not_a_number(always, monkeypatch):
    """The first step makes every variance infinite, and the next one notices."""
    run, images, view = EpochLoop.run, make_images(), LiveView(make_images())

    def diverge(loop, *arguments):
        run(loop, *arguments)
        place = loop._variables.names["weights"].index("encoder/log_variance/bias")
        for weights in (loop._state["weights"], loop._state["average"]):
            weights[place] = loop._backend.tensor(np.full(3, np.inf, "float32"))

    monkeypatch.setattr(EpochLoop, "run", diverge)
    with pytest.raises(ValueError, match="not a number in the first epoch"):
        train(build_vae(SHAPE, CONFIG), images, config=CONFIG, callback=view)
    assert [frame.epochs for frame in view.frames] == [0]


@pytest.mark.parametrize(
    "spoiled", [{"elbo": np.nan}, {"elbo": -np.inf}, {"means": np.array([[0.0, np.nan]])}]
)
def test_a_moment_that_is_not_a_number_is_not_kept(monkeypatch, spoiled):
    view, nothing = LiveView(make_images()), np.zeros((1, *SHAPE), "uint8")
    good = {"seconds": 1.0, "elbo": -3.0, "standard_prior": True, "means": np.zeros((1, 2))}
    good |= {"reconstructions": nothing, "samples": nothing[None]}
    for epochs, changes in enumerate(({}, spoiled, {})):
        frame = live.Frame(epochs=epochs, **{**good, **changes})
        monkeypatch.setattr(live, "_frame_of", lambda *_, frame=frame: frame)
        view._keep(None)
    assert [frame.epochs for frame in view.frames] == [0, 2]


@pytest.mark.one_backend
def test_a_notebook_sees_one_picture_that_changes(always, monkeypatch):
    shown, updated = [], []

    class Handle:
        def update(self, figure):
            updated.append(figure)

    def display(figure, *, display_id):
        shown.append(figure)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    view = LiveView(make_images(), np.arange(30) % 2, show=True)
    train(build_vae(SHAPE, CONFIG), make_images(), config=CONFIG, callback=view)
    assert len(shown) == 1
    assert len(updated) == len(view.frames) - 1 > 0
    assert shown[0]._repr_png_() != updated[-1]._repr_png_()


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
@pytest.mark.one_backend
def test_a_film_holds_every_frame_and_its_last_one_stays(always, latent_dim, tmp_path):
    config = TrainConfig(**{**vars(CONFIG), "latent_dim": latent_dim})
    view = LiveView(make_images(), np.arange(30) % 2, class_names=["a", "b"])
    train(build_vae(SHAPE, config), make_images(), config=config, callback=view)
    view.frames = view.frames[::3]
    path = view.save_film(tmp_path / "film.gif", frames_per_second=10)
    with Image.open(path) as film:
        durations = []
        for index in range(film.n_frames):
            film.seek(index)
            durations.append(film.info["duration"])
    assert sum(durations) == 100 * (len(view.frames) - 1) + 2000
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.one_backend
def test_the_circle_of_a_standard_normal_is_drawn_around_no_other_prior(always, monkeypatch, prior):
    scales, circles = [], []
    components = {"prior_components": 3} if prior == "mixture" else {}
    config = TrainConfig(**{**vars(CONFIG), "latent_dim": 2, "prior": prior, **components})
    model, images, view = build_vae(SHAPE, config), make_images(), LiveView(make_images())
    train(model, images, config=config, callback=view)
    scatter = album._draw_scatter(model, model.encode(images)[0], None, ())
    monkeypatch.setattr(
        plots, "plot_training_moment", lambda *_, scatter, **__: circles.append(scatter)
    )
    view.figure()
    monkeypatch.setattr(album, "_save", lambda *_: None)
    for name in ("plot_traversals", "plot_latent_manifold"):
        monkeypatch.setattr(plots, name, lambda *_, scale, **__: scales.append(scale))
    judged = evaluate(model, images, num_importance_samples=0)
    album._draw_walks(None, model, judged, images[:4], None)
    standard = prior == "normal"
    assert [each["show_prior"] for each in circles] == [standard]
    assert len(scatter.axes[0].patches) == standard
    assert ("N(0, I)" in scatter.axes[0].get_title()) == standard
    assert [scale.startswith("standard deviations") for scale in scales] == [standard] * 2


@pytest.mark.parametrize(
    ("images", "options"),
    [
        (make_images(0), {}),
        (make_images(4), {"labels": np.zeros(3, int)}),
        (make_images(4), {"share": 0.0}),
    ],
)
def test_what_cannot_be_watched_is_refused(images, options):
    with pytest.raises(ValueError, match="expected at least one image"):
        LiveView(images, **options)


def test_a_film_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no frame was kept"):
        LiveView(make_images()).save_film(tmp_path / "film.gif")
    assert list(tmp_path.iterdir()) == []


def test_a_plane_holds_as_much_variance_as_two_directions_can():
    means = np.random.default_rng(0).normal(size=(200, 5)) @ np.diag([3, 0.1, 2, 0.5, 1])
    singular = np.linalg.svd(means - means.mean(0), compute_uv=False)
    placed = Plane.of(means).place(means)
    assert (placed**2).sum() == pytest.approx((singular[:2] ** 2).sum())
    np.testing.assert_allclose(placed.mean(0), 0, atol=1e-12)


def test_two_units_are_their_own_plane():
    means = np.random.default_rng(0).normal(size=(9, 2))
    plane = Plane.of(means)
    assert plane.whole
    np.testing.assert_array_equal(plane.place(means), means)


def test_one_picture_has_a_plane_too():
    means = np.array([[1.0, 2.0, 3.0]])
    plane = Plane.of(means)
    np.testing.assert_array_equal(plane.place(means), [[0, 0]])
    np.testing.assert_array_equal(plane.place(means + np.eye(3)), np.eye(3)[:, :2])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_plane_is_turned_back(mirrored):
    rng = np.random.default_rng(0)
    means = rng.normal(size=(50, 4)) @ np.diag([3, 2, 1, 1])
    plane = Plane.of(means)
    c, s = np.cos(2.0), np.sin(2.0)
    turn = np.array([[c, -s], [s, c]]) @ np.diag([1, -1 if mirrored else 1])
    turned = Plane(plane.centre, plane.axes @ turn, plane.names, plane.whole)
    assert np.abs(turned.place(means) - plane.place(means)).max() > 1
    np.testing.assert_allclose(turned.turned_like(plane).place(means), plane.place(means))
