"""The settings of one training, flat; the command line's flags and `config.json` are made of them.

Loads no Keras: `safelight vae train --help` reads it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

_COUNTS = (
    "latent_dim",
    "num_samples",
    "final_samples",
    "batch_size",
    "prior_components",
    "flow_couplings",
    "flow_units",
)
_AMOUNTS = (
    "seed",
    "backward_samples",
    "warmup_epochs",
    "free_bits",
    "beta",
    "second_latent_dim",
    "weight_decay",
)
MAX_DECAY = 0.01  # part of the kernels that one step may take away
_FAR_TOO_DEAR = 4.0  # of a beta: half of it would be too dear still


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """What to train and how.

    Attributes:
        latent_dim: Number of latent units.
        architecture: `"dense"` (fast on small pictures), `"residual"` (dense, and deeper, since
            layers add to what passes by), `"conv"`, or `"resnet"` (convolutions in residual blocks,
            for a GPU).
        hidden_units: Widths of the encoder's hidden layers, mirrored in the decoder; for `"conv"`
            and `"resnet"` the filters at each size. Empty takes what suits the architecture.
        activation: Of the hidden layers: `"tanh"`, `"relu"` or `"silu"`; `"auto"` is relu for
            `"conv"`, silu for `"resnet"` and tanh for others.
        likelihood: p(x|z), a row of `vae.likelihoods.LIKELIHOODS`; `"auto"` takes Bernoulli for
            MNIST's digits and the discretised logistic for other pictures; `build_vae`, which is
            told of no data set, takes Bernoulli for one channel.
        binarization: `"dynamic"` draws each pixel anew, with its grey value as probability, every
            time it is seen; `"static"` once; `"none"` keeps grey values; `"auto"` suits the
            likelihood.
        beta: Weight of the KL divergence (Higgins et al. 2017); 1 gives the ELBO.
        num_samples: k of the importance-weighted bound (Burda et al. 2016); 1 gives the ELBO.
        final_samples: k of the importance-weighted bound in the last quarter of the training, from
            one epoch to the next (so a training of one epoch has none), doubly reparameterized
            where there is one stochastic layer; 1 changes nothing.
        backward_samples: Of the k samples of a bound, those that the gradient is taken through: few
            that stand for all of them, drawn by their weights, so that the mean of the gradient is
            the same; 0, or where there are no more, takes it through all.
        prior: p(z), or p(z2) where there are two layers: `"normal"`, N(0, I); or learned:
            `"mixture"` of Gaussians, `"vamp"` (Tomczak & Welling 2018), `"flow"` (RealNVP).
        prior_components: Gaussians of the mixture, or pseudo-inputs of the VampPrior.
        flow_couplings: Steps of the flow.
        flow_units: Width of the two hidden layers of each.
        second_latent_dim: Units of a second stochastic layer above the first, which has
            `latent_dim`; 0 for none.
        inference: Of two layers: `"top_down"` (Sonderby et al. 2016) or `"bottom_up"` (Burda et
            al. 2016).
        gradient: How the loss is differentiated: `"plain"`; `"stl"`, sticking the landing, for one
            sample; `"dreg"`, doubly reparameterized, for several.
        final_gradient: That of the last quarter of the training; `"auto"` goes on with `gradient`,
            or where there are `final_samples` takes the one that suits these. `"plain"` after
            `"stl"` lets units go that say next to nothing: where q(z|x) is right, the gradient of
            `"stl"` has no noise, and nothing takes them away.
        conditional: Whether encoder and decoder are told the label.
        image_size: `(height, width)` pictures are resized to; `None` keeps small ones as they are.
        epochs: Passes over the data; `None` leaves it to `minutes`, or to a default.
        minutes: Time for training; the number of epochs follows from the speed of the first ones.
        batch_size: Images.
        learning_rate: At the start; it decays along a cosine.
        warmup_epochs: Epochs over which the weight of the KL divergence rises to 1; fewer than
            there are.
        free_bits: Nats per latent unit that the KL divergence does not punish (Kingma et al. 2016).
        weight_average: Decay per step of the running average of the weights; 0 switches it off.
        weight_decay: Part of the kernels that a step with learning rate 1 would take away, apart
            from Adam (Loshchilov & Hutter 2019); 0 for none. It pays in long trainings.
        precision: `"float32"` or `"bfloat16"`, of the matrix products; `"auto"` is Keras' policy,
            float32 by default and the faster of the two.
        seed: Of weights, order, noise and binarisation.
    """

    latent_dim: int = 40
    architecture: str = "dense"
    hidden_units: tuple[int, ...] = ()
    activation: str = "auto"
    likelihood: str = "auto"
    binarization: str = "auto"
    beta: float = 1.0
    num_samples: int = 1
    final_samples: int = 1
    backward_samples: int = 0
    prior: str = "normal"
    prior_components: int = 500
    flow_couplings: int = 6
    flow_units: int = 100
    second_latent_dim: int = 0
    inference: str = "top_down"
    gradient: str = "plain"
    final_gradient: str = "auto"
    conditional: bool = False
    image_size: tuple[int, int] | None = None
    epochs: int | None = None
    minutes: float | None = None
    batch_size: int = 128
    learning_rate: float = 1e-3
    warmup_epochs: int = 0
    free_bits: float = 0.0
    weight_average: float = 0.999
    weight_decay: float = 0.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, values in CHOICES.items():
            if getattr(self, name) not in values:
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(values)}."
                )
        for name in (*_COUNTS, *self._given("epochs")):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected at least 1.")
        for name in _AMOUNTS:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected 0 or more.")
        for name in ("learning_rate", *self._given("minutes")):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)}: expected a positive number.")
        if not 0 <= self.weight_average < 1:
            raise ValueError(f"weight_average={self.weight_average}: expected 0 or more, below 1.")
        for name in ("hidden_units", *self._given("image_size")):
            if any(number < 1 for number in getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)}: expected numbers of at least 1.")
        self._check_together()

    @classmethod
    def preset(cls, name: str, **changes: Any) -> TrainConfig:
        """The settings of a row of `PRESETS`.

        Args:
            name: Of the row.
            **changes: Settings that take the place of the row's; one of `epochs` and `minutes`
                takes that of the other, and another `architecture` has its own `hidden_units`.

        Raises:
            ValueError: There is no such row, or a setting is out of range.
        """
        if name not in PRESETS:
            raise ValueError(f"preset {name!r}: expected one of {', '.join(PRESETS)}.")
        replaced = {"epochs", "minutes"} if {"epochs", "minutes"} & {*changes} else set()
        if "architecture" in changes:
            replaced.add("hidden_units")  # widths of layers are no numbers of filters
        kept = {key: value for key, value in PRESETS[name].items() if key not in replaced}
        wanted = {**kept, **changes}
        samples = max(wanted.get(key, 1) for key in ("num_samples", "final_samples"))
        if "backward_samples" not in changes and wanted.get("backward_samples", 0) >= samples:
            del wanted["backward_samples"]  # those of the row's own, larger number
        return cls(**wanted)

    def _given(self, name: str) -> tuple[str, ...]:
        return () if getattr(self, name) is None else (name,)

    def _check_together(self) -> None:
        if self.epochs is not None and self.minutes is not None:
            raise ValueError(
                f"epochs={self.epochs} and minutes={self.minutes} both say when to stop: "
                "expected one of them."
            )
        check_objective(self.beta, self.num_samples, self.free_bits, self.gradient)
        check_last_quarter(
            self,
            self.num_samples,
            self.beta,
            self.free_bits,
            one_layer=not self.second_latent_dim,
        )
        samples = max(self.num_samples, self.final_samples)
        if self.backward_samples >= samples:
            raise ValueError(
                f"backward_samples={self.backward_samples} with num_samples={self.num_samples} and "
                f"final_samples={self.final_samples}: none would be left out; expected more "
                f"samples, such as num_samples={2 * self.backward_samples}, or backward_samples=0."
            )
        if self.weight_decay * self.learning_rate > MAX_DECAY:
            raise ValueError(
                f"weight_decay={self.weight_decay:g} with learning_rate={self.learning_rate:g}: "
                f"every step would take away {self.weight_decay * self.learning_rate:.1%} of the "
                f"kernels; expected {MAX_DECAY:.0%} at most, such as weight_decay=0.02."
            )
        self._check_prior()
        binary = self.likelihood in ("auto", "bernoulli")
        if self.binarization in ("dynamic", "static") and not binary:
            raise ValueError(
                f"binarization={self.binarization!r} with likelihood={self.likelihood!r}: "
                "black and white pixels need likelihood='bernoulli', or binarization='none'."
            )

    def _check_prior(self) -> None:
        if self.flow_couplings < 2:
            raise ValueError(
                f"flow_couplings={self.flow_couplings}: expected at least 2, so that every unit is "
                "changed once."
            )
        layers = f"second_latent_dim={self.second_latent_dim}"
        if self.gradient == "dreg" and self.second_latent_dim:
            raise ValueError(
                f"gradient='dreg' with {layers}: its identity is for a posterior of one layer; "
                "expected gradient='plain', or 'stl' with num_samples=1."
            )
        if self.free_bits and (self.prior != "normal" or self.second_latent_dim):
            raise ValueError(
                f"free_bits={self.free_bits} with prior={self.prior!r} and {layers}: free bits "
                "count each unit's KL divergence in closed form; expected prior='normal' and one "
                "layer, or free_bits=0."
            )
        if self.conditional and self.prior == "vamp":
            raise ValueError(
                "prior='vamp' with conditional=True: pseudo-inputs have no labels; expected "
                "prior='mixture' or 'flow', or conditional=False."
            )

    def last_objective(self, *, one_layer: bool) -> dict[str, Any]:
        """What takes the place of a model's own settings in the last quarter of its training.

        Args:
            one_layer: Whether the model has one stochastic layer.
        """
        found: dict[str, Any] = {}
        if self.final_samples > 1:
            found = {
                "num_samples": self.final_samples,
                "backward_samples": self.backward_samples,
                "gradient": "dreg" if one_layer else "plain",
            }
        if self.final_gradient != "auto":
            found["gradient"] = self.final_gradient
        return found

    def check_new(self) -> None:
        """Whether a new model may be made; runs of earlier versions may hold what it refuses.

        Raises:
            ValueError: A VampPrior over a second layer that is inferred bottom up, a warm-up that
                does not end before the training does, or a setting that nothing would read.
        """
        if self.prior == "vamp" and self.second_latent_dim and self.inference == "bottom_up":
            raise ValueError(
                f"prior='vamp' with second_latent_dim={self.second_latent_dim} and "
                "inference='bottom_up': q(z2|u) of a pseudo-input u has no closed form there; "
                "expected inference='top_down', or prior='mixture' or 'flow'."
            )
        if self.epochs is not None and self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs} with epochs={self.epochs}: the KL divergence "
                "would never have its whole weight, as if beta were smaller; expected "
                f"warmup_epochs of at most {self.epochs - 1}, or more epochs."
            )
        self._check_read()

    def _check_read(self) -> None:
        flow, components = self.prior == "flow", self.prior in ("mixture", "vamp")
        for name, read, needed in (
            ("prior_components", components, "prior='mixture' or 'vamp'"),
            ("flow_couplings", flow, "prior='flow'"),
            ("flow_units", flow, "prior='flow'"),
            ("inference", self.second_latent_dim > 0, "a second_latent_dim above 0"),
        ):
            default = getattr(TrainConfig, name)
            if not read and getattr(self, name) != default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} with prior={self.prior!r} and "
                    f"second_latent_dim={self.second_latent_dim}: nothing would read it; expected "
                    f"{needed}, or {name} left out."
                )


CHOICES: dict[str, tuple[str, ...]] = {
    "architecture": ("dense", "residual", "conv", "resnet"),
    "activation": ("auto", "tanh", "relu", "silu"),
    "likelihood": (
        "auto",
        "bernoulli",
        "continuous_bernoulli",
        "gaussian",
        "learned_gaussian",
        "discretized_logistic",
    ),
    "binarization": ("auto", "dynamic", "static", "none"),
    "prior": ("normal", "mixture", "vamp", "flow"),
    "inference": ("top_down", "bottom_up"),
    "gradient": ("plain", "stl", "dreg"),
    "final_gradient": ("auto", "plain", "stl", "dreg"),
    "precision": ("auto", "float32", "bfloat16"),
}


# What they cost and give: docs/lab-notes.md and the README's table. A flow as prior
# with the gradient that suits it is worth five nats on MNIST, residual layers and width two more.
_RECIPE: dict[str, Any] = {
    "architecture": "residual",
    "hidden_units": (500, 500, 500),
    "prior": "flow",
    "gradient": "stl",
    "batch_size": 250,
    "learning_rate": 2e-3,
}
# Whoever has more time trains on until the pictures of the training part become known by heart
# (weight decay), and past what one sample can tell (the bound of several, through two of them).
_LONG: dict[str, Any] = {"weight_decay": 0.05, "final_samples": 5, "backward_samples": 2}
# The networks of Burda et al. 2016 (arXiv 1509.00519), section 5, for comparison with the
# literature; sticking the landing and DReG raise the same bounds with less noise. The schedule is
# not theirs (3,280 epochs in batches of 20), but one for a CPU; its times: the README's table.
_BURDA: dict[str, Any] = {
    "hidden_units": (200, 200),
    "latent_dim": 50,
    "gradient": "stl",
    "batch_size": 100,
    "learning_rate": 3e-3,
    "epochs": 400,
}
PRESETS: dict[str, dict[str, Any]] = {
    "quick": {**_RECIPE, "minutes": 10.0},
    "good": {**_RECIPE, **_LONG, "minutes": 30.0},
    "best": {**_RECIPE, **_LONG, "minutes": 60.0},
    "burda-1": {**_BURDA, "epochs": 600},
    "burda-5": {**_BURDA, "num_samples": 5, "gradient": "dreg"},
    "burda-50": {
        **_BURDA,
        "num_samples": 5,
        "final_samples": 50,
        "backward_samples": 5,
        "gradient": "dreg",
        "epochs": 500,
    },
    "burda-two": {
        **_BURDA,
        "latent_dim": 100,
        "second_latent_dim": 50,
        "inference": "bottom_up",
        "final_gradient": "plain",
        "epochs": 800,
    },
}


def ways_to_wake_units(settings: Mapping[str, Any]) -> dict[str, float]:
    """Settings that make more latent units tell pictures apart, of those that these allow.

    Args:
        settings: Those of a `TrainConfig`, by name; what is missing has its default.

    Returns:
        By name a value to try; no warm-up where a longer one would take more than half
        of the epochs, and the ELBO's own `beta` of 1 where it is far above that.
    """
    known: dict[str, Any] = {each.name: each.default for each in dataclasses.fields(TrainConfig)}
    known |= settings
    longer = max(10, 2 * known["warmup_epochs"])
    if known["epochs"] is not None:
        longer = min(longer, known["epochs"] // 2)
    found = {"warmup_epochs": longer} if longer > known["warmup_epochs"] else {}
    if max(known["num_samples"], known["final_samples"]) > 1:
        return found  # the bound of several samples has no KL term to weigh
    closed = (known["prior"], known["second_latent_dim"]) == ("normal", 0)
    plain = known["gradient"] == "plain" and known["final_gradient"] in ("auto", "plain")
    if closed and plain:
        found["free_bits"] = max(0.1, 2 * known["free_bits"])
    smaller = known["beta"] / 2 if known["beta"] <= _FAR_TOO_DEAR else 1.0
    return {**found, "beta": smaller} if known["beta"] else found


def check_last_quarter(
    config: TrainConfig, num_samples: int, beta: float, free_bits: float, *, one_layer: bool
) -> None:
    """Whether the last quarter of a training can have the bound and the gradient asked for.

    Args:
        config: Its `final_samples` and `final_gradient` count.
        num_samples: What is trained with before.
        beta: The like.
        free_bits: The like.
        one_layer: Whether the model has one stochastic layer.

    Raises:
        ValueError: It cannot.
    """
    final_samples, gradient = config.final_samples, config.final_gradient
    if final_samples > 1 and (beta != 1 or free_bits):
        raise ValueError(
            f"final_samples={final_samples} with beta={beta} and free_bits={free_bits}: the "
            "importance-weighted bound of the last quarter has no KL term to weigh; expected "
            "beta=1 and free_bits=0, or final_samples=1."
        )
    if 1 < final_samples < num_samples:
        raise ValueError(
            f"final_samples={final_samples} with num_samples={num_samples}: the last quarter would "
            "raise a looser bound than the others; expected final_samples=1, or as many at least."
        )
    if gradient == "stl" and max(num_samples, final_samples) > 1:
        raise ValueError(
            f"final_gradient='stl' with num_samples={num_samples} and final_samples="
            f"{final_samples} would be biased (Tucker et al. 2019): expected 'auto', or one sample."
        )
    if gradient == "dreg" and not one_layer:
        raise ValueError(
            "final_gradient='dreg' with two stochastic layers: its identity is for a posterior of "
            "one; expected final_gradient='plain'."
        )
    if gradient in ("stl", "dreg") and free_bits:
        raise ValueError(
            f"final_gradient={gradient!r} with free_bits={free_bits}: it takes log q(z|x) at the "
            "draw, and free bits count the KL divergence in closed form; expected one of them."
        )


def check_objective(beta: float, num_samples: int, free_bits: float, gradient: str) -> None:
    """Whether settings of the loss go together.

    Raises:
        ValueError: They do not.
    """
    if num_samples < 1 or beta < 0 or free_bits < 0:
        raise ValueError(
            f"num_samples={num_samples}, beta={beta}, free_bits={free_bits}: expected at least "
            "1 sample, and no negative number."
        )
    if num_samples > 1 and (beta != 1 or free_bits):
        raise ValueError(
            f"num_samples={num_samples} with beta={beta} and free_bits={free_bits}: the "
            "importance-weighted bound has no KL term to weigh; expected beta=1 and "
            "free_bits=0, or num_samples=1."
        )
    if gradient not in CHOICES["gradient"]:
        known = ", ".join(CHOICES["gradient"])
        raise ValueError(f"gradient={gradient!r}: expected one of {known}.")
    if gradient == "stl" and num_samples > 1:
        raise ValueError(
            f"gradient='stl' with num_samples={num_samples} would be biased (Tucker et al. 2019): "
            "expected 'dreg', or num_samples=1."
        )
    if gradient != "plain" and free_bits:
        raise ValueError(
            f"gradient={gradient!r} with free_bits={free_bits}: it takes log q(z|x) at the draw, "
            "and free bits count the KL divergence in closed form; expected one of them."
        )
