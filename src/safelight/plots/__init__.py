"""Pictures of data and results: arrays in, one figure out.

    from safelight import plots
    figure = plots.plot_confusion_matrix(matrix, ["cat", "dog"])
    plots.save_figure(figure, "confusion.png")

Every `plot_*` returns a `Picture`, a Matplotlib figure that shows itself where it is the last line
of a notebook cell; those with one panel draw into `ax` if it is given, and return its figure.
Names are loaded when they are first used, and Matplotlib with them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.plots.aggregates import plot_aggregate as plot_aggregate
    from safelight.plots.aggregates import plot_rate_distortion as plot_rate_distortion
    from safelight.plots.anomalies import plot_oddest as plot_oddest
    from safelight.plots.anomalies import plot_roc as plot_roc
    from safelight.plots.anomalies import plot_scores as plot_scores
    from safelight.plots.classification import plot_comparison as plot_comparison
    from safelight.plots.classification import plot_confusion_matrix as plot_confusion_matrix
    from safelight.plots.classification import plot_intervals as plot_intervals
    from safelight.plots.classification import plot_mistakes as plot_mistakes
    from safelight.plots.classification import plot_reliability as plot_reliability
    from safelight.plots.classification import plot_sweep as plot_sweep
    from safelight.plots.curves import plot_curves as plot_curves
    from safelight.plots.explanations import plot_explanations as plot_explanations
    from safelight.plots.films import plot_training_moment as plot_training_moment
    from safelight.plots.films import save_film as save_film
    from safelight.plots.generation import plot_generators as plot_generators
    from safelight.plots.generation import plot_interpolation as plot_interpolation
    from safelight.plots.generation import plot_latent_manifold as plot_latent_manifold
    from safelight.plots.generation import plot_reconstructions as plot_reconstructions
    from safelight.plots.generation import plot_samples as plot_samples
    from safelight.plots.generation import plot_traversals as plot_traversals
    from safelight.plots.grids import plot_image_grid as plot_image_grid
    from safelight.plots.history import plot_elbo_history as plot_elbo_history
    from safelight.plots.history import plot_game_history as plot_game_history
    from safelight.plots.history import plot_history as plot_history
    from safelight.plots.history import plot_learning_curve as plot_learning_curve
    from safelight.plots.latents import plot_bounds as plot_bounds
    from safelight.plots.latents import plot_kl_per_unit as plot_kl_per_unit
    from safelight.plots.latents import plot_latent_scatter as plot_latent_scatter
    from safelight.plots.networks import plot_activations as plot_activations
    from safelight.plots.networks import plot_filters as plot_filters
    from safelight.plots.style import BLUE as BLUE
    from safelight.plots.style import ORANGE as ORANGE
    from safelight.plots.style import VERMILION as VERMILION
    from safelight.plots.style import Picture as Picture
    from safelight.plots.style import save_figure as save_figure

_HOMES = {
    "BLUE": "style",
    "ORANGE": "style",
    "Picture": "style",
    "VERMILION": "style",
    "plot_activations": "networks",
    "plot_aggregate": "aggregates",
    "plot_bounds": "latents",
    "plot_comparison": "classification",
    "plot_confusion_matrix": "classification",
    "plot_curves": "curves",
    "plot_elbo_history": "history",
    "plot_explanations": "explanations",
    "plot_filters": "networks",
    "plot_game_history": "history",
    "plot_generators": "generation",
    "plot_history": "history",
    "plot_image_grid": "grids",
    "plot_interpolation": "generation",
    "plot_intervals": "classification",
    "plot_kl_per_unit": "latents",
    "plot_latent_manifold": "generation",
    "plot_latent_scatter": "latents",
    "plot_learning_curve": "history",
    "plot_mistakes": "classification",
    "plot_oddest": "anomalies",
    "plot_rate_distortion": "aggregates",
    "plot_reconstructions": "generation",
    "plot_reliability": "classification",
    "plot_roc": "anomalies",
    "plot_samples": "generation",
    "plot_scores": "anomalies",
    "plot_sweep": "classification",
    "plot_training_moment": "films",
    "plot_traversals": "generation",
    "save_figure": "style",
    "save_film": "films",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
