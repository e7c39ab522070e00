import numpy as np
import pytest
from PIL import Image

from safelight import plots


def draw(index, num=5):
    rng = np.random.default_rng(index)
    z = rng.normal(size=(40, 2)) * (1 + index)
    elbos = -200 + 90 * (1 - np.exp(-np.arange(num)))
    return plots.plot_training_moment(
        z,
        np.arange(40) % 3,
        pictures={
            "two rows": rng.uniform(size=(2, 4, 6, 6, 1)),
            "three rows": rng.uniform(size=(3, 4, 6, 6, 1)),
        },
        curve=(np.arange(num), elbos, index),
        limits=[[-9, 9], [-9, 9]],
        title=f"moment {index}",
        scatter={"class_names": ["a", "b", "c"]},
    )


def test_only_what_changes_moves():
    figures = [draw(0), draw(4)]
    for figure in figures:
        figure.canvas.draw()
    first, last = ([ax.get_position().bounds for ax in figure.axes] for figure in figures)
    assert first == last
    assert figures[0].axes[0].get_xlim() == figures[1].axes[0].get_xlim() == (-9, 9)
    assert figures[0].axes[-1].get_ylim() == figures[1].axes[-1].get_ylim()


def test_panels_keep_clear_of_each_other():
    figure = draw(2)
    figure.canvas.draw()
    boxes = [ax.get_tightbbox() for ax in figure.axes]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width
        assert 0 <= box.y0 < box.y1 <= figure.bbox.height


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_a_film_plays_its_figures_in_their_order(ending, tmp_path):
    path = plots.save_film(draw, 3, tmp_path / f"film.{ending}", frames_per_second=20, dpi=40)
    with Image.open(path) as film:
        assert film.n_frames == 3
        seen = []
        for index in range(3):
            film.seek(index)
            seen.append(np.asarray(film.convert("RGB"), float))
    for index, frame in enumerate(seen):
        figure = draw(index)
        figure.set_dpi(40)
        figure.savefig(tmp_path / "still.png", dpi=40)
        with Image.open(tmp_path / "still.png") as still:
            wanted = np.asarray(still.convert("RGB"), float)
        errors = [np.abs(frame - wanted).mean() for frame in seen]
        assert int(np.argmin(errors)) == index
        assert errors[index] < 3


@pytest.mark.parametrize(("name", "num"), [("film.mp4", 3), ("film.gif", 0)])
def test_other_films_are_refused(name, num, tmp_path):
    with pytest.raises(ValueError, match=r"ends in \.gif, \.webp"):
        plots.save_film(draw, num, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
