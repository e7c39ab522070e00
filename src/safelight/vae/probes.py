"""What latent means know of the labels: probes, against principal components of the same number.

A representation is judged by simple readers that were not there when it was learned: logistic
regression (what can be read off linearly) and the five nearest neighbours (whether pictures of a
class lie together). PCA is the linear yardstick: a representation that does not beat as many
principal components was not worth training.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from safelight.metrics import Interval
from safelight.resampling import Resampling, proportion
from safelight.vae.models import VAE

MAX_IMAGES = 10_000
NUM_NEIGHBORS = 5
Reader = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Features and labels to learn from, features to tell the labels of."""


@dataclasses.dataclass(frozen=True)
class ProbeReport:
    """Accuracies on test images, with Wilson's intervals.

    Attributes:
        latent_linear: Logistic regression on latent means.
        latent_neighbors: Five nearest neighbours among latent means.
        pca_linear: Logistic regression on principal components of the pixels.
        pca_neighbors: Five nearest neighbours among principal components.
        num_components: Principal components, as many as latent units where the data allow.
        num_train: Images that readers and components were fitted on.
        num_test: Images that they were judged on.
    """

    latent_linear: Interval
    latent_neighbors: Interval
    pca_linear: Interval
    pca_neighbors: Interval
    num_components: int
    num_train: int
    num_test: int

    def to_dict(self) -> dict[str, object]:
        """As it stands in `metrics.json`: linear and neighbors of latent means and of PCA."""
        return {
            "latent": {
                "linear": self.latent_linear.to_dict(),
                "neighbors": self.latent_neighbors.to_dict(),
            },
            "pca": {
                "linear": self.pca_linear.to_dict(),
                "neighbors": self.pca_neighbors.to_dict(),
            },
            "num_components": self.num_components,
            "num_train": self.num_train,
            "num_test": self.num_test,
        }

    @property
    def protocol(self) -> str:
        """How the numbers were made, in one line."""
        return (
            f"accuracy of logistic regression and of {NUM_NEIGHBORS} nearest neighbours, on latent "
            f"means and on {self.num_components} principal components of the pixels; fitted on "
            f"{self.num_train:,} training images, judged on {self.num_test:,} others"
        )


def probe(
    model: VAE,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    *,
    seed: int = 0,
    confidence: float = 0.95,
) -> ProbeReport:
    """Reads labels off latent means, and off as many principal components.

    Args:
        model: Not conditional: an encoder that is told the label would give it away.
        train: Images `(n, height, width, channels)` uint8 and labels `(n,)` to fit on; of more
            than `MAX_IMAGES`, that many are drawn, and one of each class that is not among them.
        test: The same, to judge on.
        seed: Of that draw, and of PCA where it is computed by random projections.
        confidence: Coverage of the intervals.

    Raises:
        ValueError: A conditional model, or fewer than two classes to fit on.
    """
    if model.num_classes:
        raise ValueError(
            "the model is conditional: its encoder is told the label, so that reading the label "
            "off the latents shows nothing. Probe a model with conditional=False."
        )
    (fit, labels), (held, truth) = (_limit(*part, seed) for part in (train, test))
    every = np.asarray(train[1])
    # A rare class may not be among those that were drawn.
    missed = [np.flatnonzero(every == each)[0] for each in np.setdiff1d(every, labels)]
    if missed:
        fit = np.concatenate([fit, train[0][missed]])
        labels = np.concatenate([labels, every[missed]])
    if len(np.unique(labels)) < 2:
        raise ValueError("the training images bear one label only: a probe needs two classes.")
    plan = Resampling(len(truth), None, 1, confidence, seed)

    def accuracy(reader: Reader, features: tuple[np.ndarray, np.ndarray]) -> Interval:
        return Interval(*proportion(reader(features[0], labels, features[1]) == truth, plan))

    latents = model.encode(fit)[0], model.encode(held)[0]
    components = _principal_components(fit, held, model.latent_dim, seed)
    return ProbeReport(
        latent_linear=accuracy(_read_linearly, latents),
        latent_neighbors=accuracy(_ask_neighbors, latents),
        pca_linear=accuracy(_read_linearly, components),
        pca_neighbors=accuracy(_ask_neighbors, components),
        num_components=components[0].shape[1],
        num_train=len(fit),
        num_test=len(held),
    )


def choose(total: int, num_images: int | None, *, seed: int = 0) -> np.ndarray:
    """Indices of at most so many of the images, rising; `None` chooses all.

    Args:
        total: Images there are.
        num_images: Images wanted. With one seed, fewer are a part of more.
        seed: Of the order from which the first are taken.

    Raises:
        ValueError: Fewer than one image wanted.
    """
    if num_images is None or num_images >= total:
        return np.arange(total)
    if num_images < 1:
        raise ValueError(f"num_images={num_images}: expected at least 1, or None for all.")
    return np.sort(np.random.default_rng(seed).permutation(total)[:num_images])


def _limit(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} images with {len(labels)} labels: expected one each.")
    kept = choose(len(images), MAX_IMAGES, seed=seed)
    return images[kept], np.asarray(labels)[kept]


def _principal_components(
    train: np.ndarray, test: np.ndarray, num_components: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores `(n, num_components)` of training and test images; fewer if the data have fewer."""
    from sklearn.decomposition import PCA

    fit, held = (x.reshape(len(x), -1).astype("float32") / 255 for x in (train, test))
    pca = PCA(min(num_components, *fit.shape), random_state=seed).fit(fit)
    return pca.transform(fit), pca.transform(held)


def _read_linearly(fit: np.ndarray, labels: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Labels `(len(held),)` by logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    reader = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    # The products are small and many: two BLAS threads wait for each other longer than they work.
    with threadpool_limits(limits=1, user_api="blas"):
        return reader.fit(fit.astype("float64"), labels).predict(held.astype("float64"))


def _ask_neighbors(fit: np.ndarray, labels: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Labels `(len(held),)` by vote of the nearest; distances in the features' own unit."""
    from sklearn.neighbors import KNeighborsClassifier

    # Not standardised: what a unit that the model does not use varies by is noise, and stays small.
    reader = KNeighborsClassifier(min(NUM_NEIGHBORS, len(fit)))
    return reader.fit(fit, labels).predict(held)
