"""The pictures of a run: what its generator draws, and on ways between draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safelight import plots
from safelight.gan.models import GAN
from safelight.gan.training import TrainedGAN
from safelight.runs import Run

_NUM_SAMPLES, _NUM_WALKS, _NUM_STEPS, _NUM_SHOWN = 64, 6, 10, 20


def draw(run: Run, trained: TrainedGAN, test: np.ndarray, class_names: Sequence[str]) -> None:
    """Draws the pictures of a run into its folder.

    Args:
        run: The run.
        trained: The model and what changed over its epochs.
        test: Images `(n, height, width, channels)` uint8 of the test part.
        class_names: Of a conditional model.
    """
    model, seed = trained.model, trained.config.seed
    if trained.epochs:  # Ctrl-C may have come within the first
        _save(run, "history", plots.plot_game_history(trained.history))
    _save(run, "samples", draw_samples(model, seed=seed, class_names=class_names))
    _save(run, "interpolations", draw_walks(model, seed=seed))
    if model.encoder is not None:
        few = test[:_NUM_SHOWN]
        made = model.reconstruct(few)
        _save(run, "reconstructions", plots.plot_reconstructions(few, made))


def draw_samples(
    model: GAN,
    num: int = _NUM_SAMPLES,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    class_names: Sequence[str] = (),
    temperature: float = 1.0,
) -> Any:
    """A figure of new pictures; of a conditional model without `labels`, some of every class."""
    title = "made by the generator of draws from N(0, I)"
    if temperature != 1:
        title += f", times {temperature:g}"
    if not model.num_classes or labels is not None:
        pictures = model.generate(num, labels, seed=seed, temperature=temperature)
        return plots.plot_samples(pictures, title=title)
    of_each = max(1, num // model.num_classes)
    classes = np.repeat(np.arange(model.num_classes), of_each)
    pictures = model.generate(len(classes), classes, seed=seed, temperature=temperature)
    return plots.plot_samples(pictures, columns=of_each, row_names=list(class_names), title=title)


def draw_walks(
    model: GAN, num: int = _NUM_WALKS, *, label: int | None = None, seed: int = 0
) -> Any:
    """A figure of ways between two draws each, along arcs (White 2016, arXiv 1609.04468)."""
    return plots.plot_interpolation(walk(model, num, label=label, seed=seed))


def draw_way(model: GAN, ends: np.ndarray, steps: int = _NUM_STEPS) -> Any:
    """A figure of the arc between what a VAE/GAN makes of two pictures, between these.

    Args:
        model: With an encoder.
        ends: `(2, height, width, channels)` uint8.
        steps: Pictures on the way, both reconstructions among them.
    """
    begin, end = model.encode(ends)[0]
    way = model.decode_all(arc(begin[None], end[None], steps)[0])
    return plots.plot_interpolation(way[None], originals=(ends[:1], ends[1:]))


def walk(
    model: GAN,
    num: int = _NUM_WALKS,
    *,
    steps: int = _NUM_STEPS,
    label: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Ways between draws: `(num, steps, height, width, channels)` in [0, 1].

    Along an arc the length of z changes evenly, so that the middle is as likely as the ends; a
    straight line would pass near the origin, where no draw ever lies.
    """
    rng = np.random.default_rng([seed, 1])
    begin, end = rng.standard_normal((2, num, model.latent_dim), "float32")
    z = arc(begin, end, steps)
    labels = None
    if model.num_classes:
        each = np.arange(num) % model.num_classes if label is None else np.full(num, label)
        labels = np.repeat(each, steps)
    pictures = model.decode_all(z.reshape(-1, model.latent_dim), labels)
    return pictures.reshape(num, steps, *model.image_shape)


def arc(begin: np.ndarray, end: np.ndarray, steps: int) -> np.ndarray:
    """Spherical interpolation of rows (Shoemake 1985): `(n, steps, latent_dim)`."""
    lengths = np.linalg.norm(begin, axis=1) * np.linalg.norm(end, axis=1)
    cosine = np.clip((begin * end).sum(1) / np.maximum(lengths, 1e-12), -1, 1)
    angle = np.arccos(cosine)[:, None, None]
    share = np.linspace(0, 1, steps)[None, :, None]
    sine = np.sin(angle)
    # Of the same direction, or opposite ones, the arc is a line.
    safe = np.where(sine < 1e-6, 1.0, sine)
    first = np.where(sine < 1e-6, 1 - share, np.sin((1 - share) * angle) / safe)
    second = np.where(sine < 1e-6, share, np.sin(share * angle) / safe)
    return (first * begin[:, None] + second * end[:, None]).astype("float32")


def _save(run: Run, name: str, figure: Any) -> None:
    plots.save_figure(figure, run.picture_path(name))
