"""The pictures of a run: what its model makes of pictures, of draws, and on ways between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from safelight import plots
from safelight.runs import Run
from safelight.vae.evaluation import VAEReport
from safelight.vae.latent_paths import interpolate, latent_manifold, traverse, units_by_kl
from safelight.vae.models import VAE
from safelight.vae.training import TrainedVAE

_NUM_SHOWN, _NUM_SAMPLES, _NUM_WALKS, _MAX_POINTS = 20, 64, 6, 10_000
_NUM_STEPS, _REACH = 9, 2.5  # of a traversal, in standard deviations of the prior


def draw(
    run: Run,
    trained: TrainedVAE,
    judged: VAEReport,
    *,
    test: tuple[np.ndarray, np.ndarray | None],
    class_names: Sequence[str],
) -> None:
    """Draws the pictures of a run into its folder.

    Args:
        run: The run.
        trained: The model and what changed over its epochs.
        judged: The model's numbers.
        test: Images `(n, height, width, channels)` uint8 of the test part, and their labels `(n,)`
            if there are some.
        class_names: Of the labels.
    """
    model, seed = trained.model, trained.config.seed
    images, labels = test
    told = labels if model.num_classes else None
    if trained.epochs:  # Ctrl-C may have come within the first
        _save(run, "history", plots.plot_elbo_history(trained.history))
        _save(run, "kl_per_unit", plots.plot_kl_per_unit(trained.history_kl))
    few = np.sort(np.random.default_rng(seed).permutation(len(images))[:_NUM_SHOWN])
    chosen, classes = images[few], None if told is None else told[few]
    decoded = model.reconstruct(chosen, classes)
    _save(run, "reconstructions", plots.plot_reconstructions(chosen, decoded))
    _save(run, "samples", draw_samples(model, seed=seed, class_names=class_names))
    _draw_walks(run, model, judged, chosen, classes)
    means = model.encode(images, told)[0]
    _save(run, "latent_scatter", _draw_scatter(means[:_MAX_POINTS], labels, class_names))


def draw_samples(
    model: VAE,
    num: int = _NUM_SAMPLES,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    class_names: Sequence[str] = (),
    temperature: float = 1.0,
) -> Any:
    """A figure of new pictures; of a conditional model without `labels`, some of every class.

    Args:
        model: As trained.
        num: Pictures.
        labels: `(num,)`, of a conditional model.
        seed: Of the draw.
        class_names: Of a conditional model.
        temperature: As for `VAE.sample`.
    """
    if not model.num_classes or labels is not None:
        drawn = model.sample(num, labels=labels, seed=seed, temperature=temperature)
        return plots.plot_samples(drawn, temperature=temperature)
    of_each = max(1, num // model.num_classes)
    classes = np.repeat(np.arange(model.num_classes), of_each)
    drawn = model.sample(len(classes), labels=classes, seed=seed, temperature=temperature)
    return plots.plot_samples(
        drawn, columns=of_each, row_names=list(class_names), temperature=temperature
    )


def _draw_walks(
    run: Run, model: VAE, judged: VAEReport, chosen: np.ndarray, told: np.ndarray | None
) -> None:
    """Ways through the latent space, beginning at pictures of the test part."""
    means, kl = model.encode(chosen, told)[0], judged.kl_per_unit
    label = None if told is None else int(told[0])
    # A conditional model is told one class along the way, so both ends must be of it.
    same = np.arange(len(means)) if told is None else np.flatnonzero(told == label)
    half = min(_NUM_WALKS, len(same) // 2)
    if half:
        begin, end = same[:half], same[half : 2 * half]
        ways = interpolate(model, means[begin], means[end], num=10, label=label)
        figure = plots.plot_interpolation(ways, originals=(chosen[begin], chosen[end]))
        _save(run, "interpolation", figure)
    moved = traverse(
        model, means[0], kl_per_unit=kl, num_units=10, num=_NUM_STEPS, reach=_REACH, label=label
    )
    values = np.linspace(-_REACH, _REACH, _NUM_STEPS)
    _save(run, "traversals", plots.plot_traversals(moved, kl, values=values))
    if model.latent_dim > 1:
        plane = latent_manifold(model, num=16, kl_per_unit=kl, label=label)
        first, second = (f"latent unit {unit}" for unit in units_by_kl(kl)[:2])
        figure = plots.plot_latent_manifold(plane, unit_names=(first, second))
        _save(run, "latent_manifold", figure)


def _draw_scatter(means: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str]) -> Any:
    """Latent means in two dimensions: themselves, or their first two principal components."""
    told: dict[str, Any] = {}
    if labels is not None:
        told = {"labels": labels[: len(means)], "class_names": class_names}
    if means.shape[1] == 1:
        # A line of points would hide how many there are: spread them, without a meaning.
        spread = np.random.default_rng(0).uniform(-1, 1, means.shape)
        names = ("latent unit 0", "nothing: spread to be seen")
        points = np.concatenate([means, spread], axis=1)
        return plots.plot_latent_scatter(points, unit_names=names, show_prior=False, **told)
    if means.shape[1] == 2:
        return plots.plot_latent_scatter(means, **told)
    centred = means - means.mean(0)
    _, vectors = np.linalg.eigh(np.cov(centred.T))
    names = ("first principal component of the means", "second principal component")
    points = centred @ vectors[:, :-3:-1]
    return plots.plot_latent_scatter(points, unit_names=names, show_prior=False, **told)


def _save(run: Run, name: str, figure: Any) -> None:
    plots.save_figure(figure, run.picture_path(name))
