"""Tables of likelihood, samples and gradient noise of the VAE's priors and estimators."""

from __future__ import annotations

import dataclasses
import statistics

from measuring import machine_name
from safelight.vae.config import PRESETS, TrainConfig
from tables import table, versions_line

MINUTES_CLAIM = "vae_likelihood_per_minute"
SAMPLES_CLAIM = "vae_sample_quality"
NOISE_CLAIM = "vae_gradient_noise"
NAMES = {
    "plain": "Safelight, defaults",
    "quick": "Safelight, `--preset quick`",
    "good": "Safelight, `--preset good`",
    "best": "Safelight, `--preset best`",
    "vae": "pythae's VAE",
    "vamp": "pythae's VAMP, 500 pseudo-inputs",
    "iwae": "pythae's IWAE, 5 samples",
}
# How they are written, and what was published for networks of dense layers: dynamic binarisation,
# 5,000 importance samples, two hidden layers of 300 and 40 latents (Norouzi et al. 2020, arXiv
# 2004.04795); their MNIST stands in the picture.
DATA = {
    "mnist": ("MNIST", ""),
    "fashion-mnist": (
        "Fashion-MNIST",
        " Published, by gated layers: 228.70 for a VAE, 227.35 with a VampPrior, 226.75 with "
        "exemplars.",
    ),
}
_SCORES = {
    "frechet": ("Frechet distance", 2),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
    "density": ("density", 2),
    "coverage": ("coverage", 3),
}


def render_minutes(result: dict) -> list[str]:
    """-log p(x) by minutes of training, a row for each way."""
    points = {name: result["points"][name] for name in NAMES if name in result["points"]}
    data, published = DATA[result.get("data", "mnist")]
    minutes = sorted({m for found in points.values() for m in found}, key=float)
    rows = [
        [
            NAMES[name] + _as_it_was(name, found),
            *(
                f"{found[m]['nll']:.2f} ± {found[m]['standard_error']:.2f}" if m in found else ""
                for m in minutes
            ),
        ]
        for name, found in points.items()
    ]
    header = ("-log p(x), nats", *(f"after {m} min of training" for m in minutes))
    return [
        f"{data}, dynamic binarisation, 5,000 importance samples by one estimate for all, all "
        f"test images, standard error over images, seed {result['seed']}; trained on "
        f"{machine_name(result['machine'])}{_elsewhere(points)}.{published}",
        "",
        *table(header, rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def _as_it_was(name: str, found: dict[str, dict]) -> str:
    """In what a preset's settings differed when it was measured from those that it has."""
    if name not in PRESETS:
        return ""
    now = dataclasses.asdict(TrainConfig(**PRESETS[name]))
    words: set[str] = set()
    for point in found.values():
        then = dataclasses.asdict(TrainConfig(**{**point["settings"], "minutes": now["minutes"]}))
        then["hidden_units"] = tuple(then["hidden_units"])
        words |= {f"{key} {value}" for key, value in then.items() if value != now[key]}
    return f" as it was then, with {', '.join(sorted(words))}" if words else ""


def _elsewhere(points: dict[str, dict]) -> str:
    """Where the likelihoods were computed, if not on the machine of the training."""
    found = [piece.get("judged_on", {}) for some in points.values() for piece in some.values()]
    names = sorted({str(where["accelerator"]) for where in found if where.get("accelerator")})
    return f"; some or all of it judged on {', '.join(names)}" if names else ""


def render_samples(result: dict) -> list[str]:
    """Features of generated digits against real ones, a row for each prior."""
    rows = []
    for name, found in result["rows"].items():
        label = "training pictures, in the place of samples" if name == "real" else f"{name} prior"
        nll = f"{found['nll']:.1f} ± {found['standard_error']:.1f}" if "nll" in found else ""
        rows.append([label, nll, *_scores(found["samples"])])
        for key, density in {"afterwards": "mixture", "afterwards_flow": "flow"}.items():
            if key in found:
                label = f"the same, a {density} fitted afterwards"
                rows.append([label, "", *_scores(found[key])])
    judge = result["rows"]["real"]["judge"]
    return [
        f"Digits of one VAE trained for {result['minutes']} minutes with each prior, against the "
        f"test part, in {judge['protocol']} (right on {100 * judge['accuracy']:.1f} % of the test "
        "part); mean and standard deviation of five sets of 10,000; "
        f"{machine_name(result['machine'])}.",
        "",
        *table(("samples of", "-log p(x), nats", *(n for n, _ in _SCORES.values())), rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def _scores(found: dict) -> list[str]:
    return [
        f"{found[key]['mean']:.{digits}f} ± {found[key]['deviation']:.{digits}f}"
        for key, (_, digits) in _SCORES.items()
    ]


def render_noise(result: dict) -> list[str]:
    """Variance of the encoder's gradient by epoch: the median of the batches."""
    epochs = [str(epoch) for epoch in result["epochs"]]
    rows = [
        [name, *(f"{statistics.median(found[e]['variance']):.3g}" for e in epochs)]
        for name, found in result["encoder"].items()
    ]
    told = [f"after {e} epoch{'' if e == '1' else 's'}" for e in epochs]
    header = ("variance of the encoder's gradient", *told)
    return [
        f"MNIST, a flow as prior, batches of 100, {result['num_draws']} draws of z, summed over "
        f"the weights, the median of five batches; {machine_name(result['machine'])}.",
        "",
        *table(header, rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]
