"""Densities fitted to the latents of pictures: better samples from a model as it is.

Where the aggregate posterior q(z) of the pictures is far from the prior p(z) (`surgery` says how
far), draws from the prior land where the decoder has never been: good reconstructions, bad
samples. Nothing need be trained anew: a density fitted to where pictures do lie is drawn from
instead, here a mixture of Gaussians (Ghosh et al. 2020, arXiv 1903.12436; Dai & Wipf 2019, arXiv
1903.05789, train a second model for it), in `fitted_flows` a flow.

    fitted = fit_density(model, train=images, validation=others, test=test_images)
    pictures = fitted.mixture.decode(model, 64)

It is fitted to draws from q(z|x) and not to its means, as the decoder has learned from draws. The
means of a unit that says nothing are all at 0, its draws all over the prior; a density of means
would be a spike there, and everywhere narrower than what the decoder has seen, the more so the
more noise q(z|x) has.
"""

from __future__ import annotations

import abc
import dataclasses
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
from keras import ops
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import solve_triangular
from scipy.special import logsumexp

from safelight.metrics import Interval, mean_intervals
from safelight.runs import Run, atomic_path
from safelight.untrusted import read_arrays, take
from safelight.vae.estimates import draw_pixels
from safelight.vae.models import VAE
from safelight.vae.probes import choose
from safelight.vae.surgery import log_prior

NUM_COMPONENTS = (1, 2, 5, 10, 20, 50)
_MAX_DRAWS, _MAX_HELD_OUT = 10_000, 5_000
_DRAWS_OF_EACH = 10  # at most, where there are few pictures
_NUM_RESAMPLES = 1000
_TOLERANCE = 0.01  # nats a latent, in a step of the fit: below what another start changes
_Kind = TypeVar("_Kind", bound="Fitted")
Part = np.ndarray | tuple[np.ndarray, np.ndarray]
"""Pictures, or pictures and labels."""


class Density(abc.ABC):
    """What latents can be drawn from in the prior's place."""

    @property
    @abc.abstractmethod
    def latent_dim(self) -> int:
        """The number of latent units."""

    @abc.abstractmethod
    def describe(self) -> str:
        """What it is, with its article: `"a Gaussian"`."""

    @abc.abstractmethod
    def log_density(self, z: ArrayLike) -> NDArray[np.float64]:
        """The log density of `(num, latent_dim)` latents: `(num,)`, nats."""

    @abc.abstractmethod
    def sample(self, num: int, *, seed: int) -> NDArray[np.float64]:
        """Draws, `(num, latent_dim)`."""

    def decode(self, model: VAE, num: int, *, labels: Any = None, seed: int = 0) -> np.ndarray:
        """New pictures: the expected ones at draws.

        Args:
            model: To whose latents it was fitted.
            num: How many.
            labels: `(num,)` integers for a conditional model.
            seed: Of the draws.

        Returns:
            float32 `(num, height, width, channels)` in [0, 1].
        """
        return model.decode(self.sample(num, seed=seed), labels)


@dataclasses.dataclass(frozen=True, eq=False)
class LatentMixture(Density):
    """A mixture of Gaussians over latents, fitted after a training; `priors.Mixture` is trained in.

    Attributes:
        weights: `(num_components,)`, positive, of sum 1.
        means: `(num_components, latent_dim)`.
        factors: `(num_components, latent_dim, latent_dim)`, lower triangular; with their transposed
            they are the covariances.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    factors: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def latent_dim(self) -> int:
        """As `Density.latent_dim`."""
        return self.means.shape[1]

    def describe(self) -> str:
        """As `Density.describe`."""
        return f"a mixture of {len(self)} Gaussians" if len(self) > 1 else "a Gaussian"

    def log_density(self, z: ArrayLike) -> NDArray[np.float64]:
        """As `Density.log_density`."""
        rows = np.asarray(z, np.float64)
        terms = [
            np.log(weight) + _normal_log_density(rows - mean, factor)
            for weight, mean, factor in zip(self.weights, self.means, self.factors, strict=True)
        ]
        return np.asarray(logsumexp(terms, axis=0))

    def sample(self, num: int, *, seed: int) -> NDArray[np.float64]:
        """As `Density.sample`."""
        rng = np.random.default_rng(seed)
        which = rng.choice(len(self), size=num, p=self.weights / self.weights.sum())
        noise = rng.normal(size=(num, self.latent_dim))
        return self.means[which] + np.einsum("nij,nj->ni", self.factors[which], noise)


class Fitted(abc.ABC):
    """Densities and what they are worth, as a run keeps them: an .npz archive of plain arrays."""

    FILE: ClassVar[str]
    """Its name in the folder of a run."""

    @abc.abstractmethod
    def named(self, name: str) -> tuple[Density, Interval]:
        """A density, and its gain over the prior with its interval."""

    @abc.abstractmethod
    def to_arrays(self) -> dict[str, Any]:
        """What the archive holds."""

    @classmethod
    @abc.abstractmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """What `to_arrays` gave; raises ValueError for anything else."""

    def to_bytes(self) -> bytes:
        """As it stands in the file."""
        buffer = io.BytesIO()
        np.savez(buffer, **self.to_arrays())
        return buffer.getvalue()

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `to_bytes` wrote.

        Raises:
            ValueError: Something else is in the file.
        """
        try:
            return cls.from_arrays(read_arrays(path))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it and sample again.") from error


def keep_density(run: Run, fitted: Fitted) -> None:
    """Writes it into the run, where `read_density` finds it."""
    with atomic_path(run.path / fitted.FILE) as path:
        path.write_bytes(fitted.to_bytes())


def read_density(run: Run, kind: type[_Kind]) -> _Kind | None:
    """What `keep_density` wrote of a kind; `None` if nothing was.

    Raises:
        ValueError: The file is damaged.
    """
    path = run.path / kind.FILE
    return kind.read(path) if path.is_file() else None


@dataclasses.dataclass(frozen=True, eq=False)
class FittedDensity(Fitted):
    """A mixture, and what it is worth.

    Attributes:
        mixture: The one whose number of components was the best on validation pictures.
        gaussian: The one with a single component.
        chosen_by: Mean log density of latents of validation pictures, nats, by the number of
            components.
        log_density: Mean log density of latents of test pictures under `"prior"`, `"gaussian"` and
            `"mixture"`, nats. Whatever the density, the entropy of the latents is in all of them;
            so a difference is by how much nearer one is to the aggregate posterior than another.
        gain: Of `"gaussian"` and `"mixture"` over the prior, with its interval for other pictures.
    """

    FILE = "density.npz"
    mixture: LatentMixture
    gaussian: LatentMixture
    chosen_by: Mapping[int, float]
    log_density: Mapping[str, float]
    gain: Mapping[str, Interval]

    def density(self, name: str) -> LatentMixture:
        """`"mixture"` or `"gaussian"`."""
        return {"mixture": self.mixture, "gaussian": self.gaussian}[name]

    def named(self, name: str) -> tuple[LatentMixture, Interval]:
        """As `Fitted.named`: `"mixture"` or `"gaussian"`."""
        return self.density(name), self.gain[name]

    def to_arrays(self) -> dict[str, Any]:
        """As `Fitted.to_arrays`."""
        names = ("gaussian", "mixture")
        arrays: dict[str, Any] = {
            f"{name}_{field.name}": getattr(self.density(name), field.name)
            for name in names
            for field in dataclasses.fields(LatentMixture)
        }
        arrays["chosen_by"] = np.array(list(self.chosen_by.items()), np.float64)
        arrays["log_density"] = np.array([self.log_density[n] for n in ("prior", *names)])
        arrays["gain"] = np.array([dataclasses.astuple(self.gain[n])[:3] for n in names])
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """As `Fitted.from_arrays`."""
        names = ("gaussian", "mixture")
        mixtures = {name: _take_mixture(arrays, name) for name in names}
        if mixtures["gaussian"].latent_dim != mixtures["mixture"].latent_dim:
            raise ValueError("its densities are of different latent spaces")
        values = take(arrays, "log_density", kinds="d", shape=(3,), finite=False).tolist()
        gains = take(arrays, "gain", kinds="d", shape=(2, 3), finite=False).tolist()
        chosen_by = take(arrays, "chosen_by", kinds="d", shape=(None, 2), finite=False)
        if not np.isfinite(chosen_by[:, 0]).all():
            raise ValueError("its numbers of components are none")
        return cls(
            mixtures["mixture"],
            mixtures["gaussian"],
            {int(number): value for number, value in chosen_by.tolist()},
            dict(zip(("prior", *names), values, strict=True)),
            {name: Interval(*row) for name, row in zip(names, gains, strict=True)},
        )


def _take_mixture(arrays: Mapping[str, NDArray[Any]], name: str) -> LatentMixture:
    weights = take(arrays, f"{name}_weights", kinds="d", shape=(None,))
    means = take(arrays, f"{name}_means", kinds="d", shape=(len(weights), None))
    sides = (len(weights), means.shape[1], means.shape[1])
    factors = take(arrays, f"{name}_factors", kinds="d", shape=sides)
    if not means.size or min(weights.min(), np.diagonal(factors, 0, 1, 2).min()) <= 0:
        raise ValueError("a mixture has no components, or some of no weight or width")
    if abs(weights.sum() - 1) > 1e-6:
        raise ValueError("the weights of a mixture do not sum to 1")
    return LatentMixture(weights, means, factors)


def fit_density(
    model: VAE,
    *,
    train: Part,
    validation: Part,
    test: Part,
    num_components: Sequence[int] = NUM_COMPONENTS,
    seed: int = 0,
) -> FittedDensity:
    """Fits a mixture of Gaussians to where pictures lie in the latent space.

    Args:
        model: As trained, with any prior.
        train: uint8 `(n, height, width, channels)` to fit to, or `(images, labels)` for a
            conditional model; some 10,000 draws of their latents are used.
        validation: The like, by which the number of components is chosen.
        test: The like, on which the densities are compared.
        num_components: Numbers to try, rising; no more are tried once two of them were no better.
        seed: Of all draws.

    Raises:
        ValueError: No number of components, or arrays that do not fit the model.
    """
    if not num_components or min(num_components) < 1:
        raise ValueError(f"num_components={tuple(num_components)}: expected numbers from 1.")
    learned = draw_latents(model, train, _MAX_DRAWS, seed=seed)
    chosen, judged = draw_held_out(model, validation, test, seed=seed)
    rows = [each.reshape(-1, model.latent_dim) for each in (learned, chosen, judged)]
    mixture, tried = choose_mixture(*rows[:2], num_components=num_components, seed=seed)
    gaussian = fit_mixture(rows[0], 1, seed=seed)
    values = {
        "prior": log_prior(model.prior, rows[2]),
        "gaussian": gaussian.log_density(rows[2]),
        "mixture": mixture.log_density(rows[2]),
    }
    means, gains = compare_densities(values, judged.shape[1], seed=seed)
    return FittedDensity(mixture, gaussian, tried, means, gains)


def choose_mixture(
    z: ArrayLike, held_out: ArrayLike, *, num_components: Sequence[int], seed: int = 0
) -> tuple[LatentMixture, dict[int, float]]:
    """Fits mixtures with more and more components, and keeps the best on other latents.

    Args:
        z: `(n, latent_dim)` to fit to.
        held_out: `(m, latent_dim)` to choose by.
        num_components: Numbers to try, rising; those that are more than a tenth of n are left out,
            and no more are tried once two in a row were no better than the best.
        seed: Of the fits.

    Returns:
        The best, and the mean log density of `held_out` by number of components, nats.
    """
    found: dict[int, float] = {}
    best, since = fit_mixture(z, min(num_components), seed=seed), 0
    for number in num_components:
        if since == 2 or (found and number > len(np.asarray(z)) / 10):
            break
        mixture = fit_mixture(z, number, seed=seed)
        found[number] = float(mixture.log_density(held_out).mean())
        best, since = (mixture, 0) if found[number] == max(found.values()) else (best, since + 1)
    return best, found


def fit_mixture(z: ArrayLike, num_components: int, *, seed: int = 0) -> LatentMixture:
    """One mixture with full covariances, by expectation and maximisation (scikit-learn).

    Args:
        z: `(n, latent_dim)`.
        num_components: How many Gaussians.
        seed: Of where they start.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    fit = GaussianMixture(num_components, tol=_TOLERANCE, max_iter=100, random_state=seed)
    with warnings.catch_warnings():
        # It ends after so many steps in any case, and what is held out judges what it has reached.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fit.fit(np.asarray(z, np.float64))
    return LatentMixture(fit.weights_, fit.means_, np.linalg.cholesky(fit.covariances_))


def draw_held_out(
    model: VAE, validation: Part, test: Part, *, seed: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The latents that choose a density and those that judge it; as from `draw_latents`."""
    chosen = draw_latents(model, validation, _MAX_HELD_OUT, seed=seed + 1)
    return chosen, draw_latents(model, test, _MAX_HELD_OUT, seed=seed + 2)


def draw_latents(model: VAE, part: Part, num: int, *, seed: int) -> NDArray[np.float64]:
    """Draws from q(z|x), `(num_draws, num_images, latent_dim)`: several where images are few."""
    mean, log_variance = encode_some(model, part, num, seed=seed)
    of_each = max(1, min(_DRAWS_OF_EACH, num // len(mean)))
    return propose_latents(model.prior, mean, log_variance, of_each, seed=seed)


def encode_some(
    model: VAE, part: Part, num: int, *, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the encoder says of `num` pictures of a part, or of all: mean and log variance."""
    images, labels = part if isinstance(part, tuple) else (part, None)
    some = choose(len(images), num, seed=seed)
    drawn = draw_pixels(model, images[some], seed=seed)
    mean, log_variance = model.encoded(drawn, None if labels is None else labels[some])
    return mean, log_variance


def propose_latents(
    prior: Any, mean: NDArray[Any], log_variance: NDArray[Any], of_each: int, *, seed: int
) -> NDArray[np.float64]:
    """Draws from q(z|x) of encoded pictures, `(of_each, num_images, latent_dim)`."""
    visible = mean.shape[-1] - prior.num_encoded(0)
    shape = (of_each, len(mean), prior.num_latents(visible))
    noise = np.random.default_rng(seed).normal(size=shape).astype("float32")
    # The prior's own way from noise to latents, as with two layers q(z|x) is no Gaussian.
    z = prior.propose(mean, log_variance, noise)[0]
    return ops.convert_to_numpy(z).astype(np.float64)


def compare_densities(
    values: Mapping[str, NDArray[np.float64]], num_images: int, *, seed: int
) -> tuple[dict[str, float], dict[str, Interval]]:
    """Densities by what they are worth on latents of pictures that they have not seen.

    Args:
        values: By name log densities `(num_draws * num_images,)` of the same latents, nats, among
            them `"prior"`.
        num_images: Draws of one picture hang together: pictures are drawn anew for an interval.
        seed: Of these draws.

    Returns:
        The means by name, and of all but the prior the gains over it.
    """
    rows = {name: value.reshape(-1, num_images).mean(0) for name, value in values.items()}
    columns = {name: row - rows["prior"] for name, row in rows.items() if name != "prior"}
    gains = mean_intervals(columns, num_resamples=_NUM_RESAMPLES, seed=seed)
    return {name: float(row.mean()) for name, row in rows.items()}, gains


def _normal_log_density(
    differences: NDArray[np.float64], factor: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Of rows less their mean, for a covariance whose Cholesky factor is given."""
    scaled = solve_triangular(factor, differences.T, lower=True, check_finite=False)
    log_volume = np.log(np.diagonal(factor)).sum()
    return -0.5 * (np.square(scaled).sum(0) + len(factor) * np.log(2 * np.pi)) - log_volume
