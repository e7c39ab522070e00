"""The pictures of a run: what its model makes of pictures, of draws, and on ways between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from safelight import plots
from safelight.plots.generation import LEARNED_SCALE, STANDARD_SCALE
from safelight.runs import Run
from safelight.vae import priors
from safelight.vae.aggregate import AggregatePosterior
from safelight.vae.densities import Density
from safelight.vae.evaluation import VAEReport
from safelight.vae.latent_paths import interpolate, latent_manifold, traverse, units_by_kl
from safelight.vae.models import VAE
from safelight.vae.planes import Plane
from safelight.vae.training import TrainedVAE

_NUM_SHOWN, _NUM_SAMPLES, _NUM_WALKS, _MAX_POINTS = 20, 64, 6, 10_000
_NUM_STEPS, _REACH = 9, 2.5  # of a traversal, in standard deviations of the prior
_NUM_MARGINALS, _NUM_PLACES, _NUM_DRAWN = 12, 161, 4000


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
        if np.isfinite(trained.history_kl).any():  # not where the prior has no closed form
            _save(run, "kl_per_unit", plots.plot_kl_per_unit(trained.history_kl))
    few = np.sort(np.random.default_rng(seed).permutation(len(images))[:_NUM_SHOWN])
    chosen, classes = images[few], None if told is None else told[few]
    decoded = model.reconstruct(chosen, classes)
    _save(run, "reconstructions", plots.plot_reconstructions(chosen, decoded))
    _save(run, "samples", draw_samples(model, seed=seed, class_names=class_names))
    _draw_walks(run, model, judged, chosen, classes)
    means, log_variances = model.encode(images, told)
    if model.latent_dim > 1 and model.prior.one_layer:
        aggregate = AggregatePosterior(means[:_MAX_POINTS], log_variances[:_MAX_POINTS])
        _save(run, "aggregate", draw_aggregate(aggregate, model.prior, judged, seed=seed))
    _save(run, "latent_scatter", _draw_scatter(model, means[:_MAX_POINTS], labels, class_names))


def draw_samples(
    model: VAE,
    num: int = _NUM_SAMPLES,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    class_names: Sequence[str] = (),
    temperature: float = 1.0,
    density: Density | None = None,
) -> Any:
    """A figure of new pictures; of a conditional model without `labels`, some of every class.

    Args:
        model: As trained.
        num: Pictures.
        labels: `(num,)`, of a conditional model.
        seed: Of the draw.
        class_names: Of a conditional model.
        temperature: As for `VAE.sample`.
        density: To draw from instead of the prior.
    """
    options: dict[str, Any] = {"seed": seed, "temperature": temperature, "density": density}
    shown: dict[str, Any] = {"temperature": temperature, "title": _describe(model, density)}
    if not model.num_classes or labels is not None:
        return plots.plot_samples(sample(model, num, labels=labels, **options), **shown)
    of_each = max(1, num // model.num_classes)
    classes = np.repeat(np.arange(model.num_classes), of_each)
    drawn = sample(model, len(classes), labels=classes, **options)
    return plots.plot_samples(drawn, columns=of_each, row_names=list(class_names), **shown)


def sample(
    model: VAE,
    num: int,
    *,
    labels: np.ndarray | None = None,
    seed: int = 0,
    temperature: float = 1.0,
    density: Density | None = None,
) -> np.ndarray:
    """New pictures `(num, height, width, channels)`; arguments as for `draw_samples`."""
    if density is not None:
        return density.decode(model, num, labels=labels, seed=seed)
    return model.sample(num, labels=labels, seed=seed, temperature=temperature)


def _describe(model: VAE, density: Density | None) -> str | None:
    """The title of samples; `None` for the standard normal, whose own it is."""
    if density is None:
        plain = isinstance(model.prior, priors.StandardNormal)
        return None if plain else "decoded from draws of the learned prior"
    return f"decoded from draws of {density.describe()}, fitted to where training pictures lie"


def draw_aggregate(
    aggregate: AggregatePosterior, prior: Any, judged: VAEReport, *, seed: int = 0
) -> Any:
    """A figure of where pictures lie against where samples come from, for the units with most KL.

    Args:
        aggregate: Of the pictures, with two latent units or more.
        prior: The model's; of one that is not the standard normal draws are smoothed.
        judged: The model's numbers, which name the units.
        seed: Of these draws.
    """
    units = units_by_kl(judged.kl_per_unit)[:_NUM_MARGINALS].tolist()
    drawn = _smooth_prior(prior, aggregate.latent_dim, seed)
    places = {unit: _place(aggregate, drawn, unit) for unit in units}
    plane = (units[0], units[1])
    along = places[plane[0]], places[plane[1]]
    marginals = {
        _name_unit(judged, unit): (
            places[unit],
            aggregate.marginal_density(unit, places[unit]),
            drawn.marginal_density(unit, places[unit]),
        )
        for unit in units
    }
    return plots.plot_aggregate(
        aggregate.plane_density(plane, along),
        drawn.plane_density(plane, along),
        places=along,
        unit_names=(f"latent unit {plane[0]}", f"latent unit {plane[1]}"),
        marginals=marginals,
    )


def _smooth_prior(prior: Any, latent_dim: int, seed: int) -> AggregatePosterior:
    """The prior as a mixture of Gaussians: itself, or a kernel estimate from its draws."""
    if isinstance(prior, priors.StandardNormal):
        return AggregatePosterior(np.zeros((1, latent_dim)), np.zeros((1, latent_dim)))
    z = ops.convert_to_numpy(prior.sample((_NUM_DRAWN, latent_dim), seed))
    width = z.std(0) * _NUM_DRAWN ** (-1 / 6)  # Scott's rule for two dimensions
    return AggregatePosterior(z, np.broadcast_to(2 * np.log(width), z.shape))


def _place(aggregate: AggregatePosterior, prior: AggregatePosterior, unit: int) -> np.ndarray:
    """Values of a unit between which lies nearly all that pictures and samples have of it."""
    ends = [
        np.quantile(each.mean[:, unit] + side * 3 * np.exp(each.log_variance[:, unit] / 2), share)
        for each in (aggregate, prior)
        for side, share in ((-1, 0.005), (1, 0.995))
    ]
    return np.linspace(min(ends), max(ends), _NUM_PLACES)


def _name_unit(judged: VAEReport, unit: int) -> str:
    cut = judged.surgery
    if cut is None or cut.kl_per_unit is None or cut.aggregate_kl_per_unit is None:
        return f"unit {unit}"
    gap = cut.aggregate_kl_per_unit[unit]
    return f"unit {unit}, KL {cut.kl_per_unit[unit]:.2f}, gap {gap:.2f}"


def _draw_walks(
    run: Run, model: VAE, judged: VAEReport, chosen: np.ndarray, told: np.ndarray | None
) -> None:
    """Ways through the latent space, beginning at pictures of the test part."""
    means = model.encode(chosen, told)[0]
    kl = judged.kl_per_unit[: model.visible_dim]
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
    scale = STANDARD_SCALE if isinstance(model.prior, priors.StandardNormal) else LEARNED_SCALE
    _save(run, "traversals", plots.plot_traversals(moved, kl, values=values, scale=scale))
    if model.visible_dim > 1:
        plane = latent_manifold(model, num=16, kl_per_unit=kl, label=label)
        first, second = (f"latent unit {unit}" for unit in units_by_kl(kl)[:2])
        figure = plots.plot_latent_manifold(plane, unit_names=(first, second), scale=scale)
        _save(run, "latent_manifold", figure)


def _draw_scatter(
    model: VAE, means: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str]
) -> Any:
    """Latent means in two dimensions: themselves, or their first two principal components."""
    told: dict[str, Any] = {}
    if labels is not None:
        told = {"labels": labels[: len(means)], "class_names": class_names}
    plane = Plane.of(means)
    return plots.plot_latent_scatter(
        plane.place(means),
        unit_names=plane.names,
        show_prior=plane.whole and isinstance(model.prior, priors.StandardNormal),
        **told,
    )


def _save(run: Run, name: str, figure: Any) -> None:
    plots.save_figure(figure, run.picture_path(name))
