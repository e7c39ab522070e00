"""The flags of `train`: one for each setting of a subject's training, the important ones first.

Loads no Keras: `--help` reads it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, get_type_hints

import typer

from safelight.gan import config as gan_config
from safelight.transfer import config as transfer_config
from safelight.vae import config as vae_config

BACKBONES = ("vgg16", "vgg19", "resnet50", "mobilenetv2", "efficientnetv2b0", "convnexttiny")


@dataclasses.dataclass(frozen=True, eq=False)
class Flags:
    """How the settings of a training are said on the command line.

    Attributes:
        config: The dataclass of the settings.
        help: A text per field, in the order of --help; tests hold it against the fields, so that
            no setting lacks its flag.
        num_first: How many of them stand before the command's own options.
        choices: The values of a field that takes one of a few; None is said `none`.
        metavars: What --help calls the value of a field, where its type says too little.
        parsers: From what was typed to the value of the field.
        presets: Names of settings that go together, as `config.preset` knows them, and what
            --help says of each; what is typed beside --preset overrides theirs.
    """

    config: Any
    help: Mapping[str, str]
    num_first: int
    choices: Mapping[str, tuple[str | None, ...]]
    metavars: Mapping[str, str]
    parsers: Mapping[str, Callable[[Any], Any]]
    presets: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def options(self) -> list[inspect.Parameter]:
        """A parameter for typer per field."""
        hints = get_type_hints(self.config)
        defaults = {field.name: field.default for field in dataclasses.fields(self.config)}
        return [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=self._shown(name, defaults[name]),
                annotation=Annotated[
                    self._type(name, hints[name]),
                    typer.Option(help=text, metavar=self.metavars.get(name)),
                ],
            )
            for name, text in self.help.items()
        ]

    def preset_option(self) -> list[inspect.Parameter]:
        """The parameter for typer that names a preset, where there are any."""
        if not self.presets:
            return []
        said = "; ".join(f"`{name}` {words}" for name, words in self.presets.items())
        text = f"Settings that go together: {said}. What is said beside it overrides them."
        option = typer.Option(help=text, show_default=False)
        return [
            inspect.Parameter(
                "preset",
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[Literal[tuple(self.presets)] | None, option],
            )
        ]

    def settings(
        self, values: Mapping[str, Any], *, preset: str | None = None, typed: Collection[str] = ()
    ) -> Any:
        """The dataclass made of what was typed.

        Args:
            values: Of each field, typed or the default.
            preset: The name of one.
            typed: Fields whose value overrides the preset's.

        Raises:
            ValueError: A value that is out of range, or does not go with another.
        """
        parsed = {name: self._parse(name, value) for name, value in values.items()}
        if preset is None:
            return self.config(**parsed)
        return self.config.preset(preset, **{name: parsed[name] for name in typed})

    def _shown(self, name: str, default: Any) -> Any:
        if isinstance(default, tuple):
            return None
        return "none" if default is None and name in self.choices else default

    def _type(self, name: str, hint: Any) -> Any:
        if name in self.choices and name not in self.metavars:
            return Literal[tuple(choice or "none" for choice in self.choices[name])]
        # An empty tuple is the default of a repeatable flag: what suits the network.
        if hint == tuple[str, ...]:
            return list[str] | None
        if hint == tuple[int, ...]:
            return list[int] | None
        return str | None if name in self.parsers else hint

    def _parse(self, name: str, value: Any) -> Any:
        if value is None:
            # Only a repeatable flag that was not given has another default than None.
            return next(f.default for f in dataclasses.fields(self.config) if f.name == name)
        if name in self.parsers:
            return self.parsers[name](value)
        if isinstance(value, list):
            return tuple(value)
        return None if value == "none" and None in self.choices.get(name, ()) else value


def parse_size(text: str) -> tuple[int, int]:
    """`(height, width)` of `64` or `48x64`.

    Raises:
        ValueError: It is neither.
    """
    sides = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip().lower())
    if sides is None:
        raise ValueError(
            f"--image-size {text}: expected a number of pixels such as 64, or height and width "
            "such as 48x64."
        )
    return int(sides[1]), int(sides[2] or sides[1])


TRANSFER = Flags(
    config=transfer_config.TrainConfig,
    help={
        "backbone": "The pretrained network.",
        "unfreeze_from": "The first layer or block (block5) that is fine-tuned after the head. "
        "`auto` is the network's last block, `all` everything, `none` only the head.",
        "image_size": "Side in pixels that pictures are resized to.",
        "views": "Augmented views of each training picture, the picture itself included.",
        "epochs": "Most epochs of fine-tuning.",
        "seed": "Decides the split, views, order and dropout.",
        "pretrained": "`--no-pretrained` starts from random weights and trains everything: it "
        "shows what transfer is worth.",
        "cached": "`--no-cached` runs the frozen layers anew in every epoch, with fresh "
        "augmentation: slower.",
        "precision": "Number format of the frozen layers; `auto` takes bfloat16 where the "
        "processor is fast at it.",
        "engine": "What computes the frozen layers; `auto` takes the fastest that is installed "
        "(ncnn for VGG in float32, openvino on processors with AMX).",
        "head": "`logistic` regression, `kernel` ridge regression (both with cross-validated "
        "strength), or a `dense` layer with dropout; `auto` is kernel if only the head is trained "
        "and there are at most 16,000 views of pictures, else logistic.",
        "head_layers": "What the head sees, LAYER/avg or LAYER/max; may be repeated. By default "
        "averages and maxima of several stages (vgg16: blocks 3 to 5).",
        "hidden_units": "Width of the dense head.",
        "dropout": "Share of the head's inputs dropped in training.",
        "learning_rate": "At the start of fine-tuning; it falls to zero along a cosine.",
        "batch_size": "Pictures in a step of fine-tuning.",
        "optimizer": "What fine-tuning steps by.",
        "weight_decay": "Share of the weights that adamw takes away in each step, times the rate.",
        "patience": "Epochs without a better validation loss before fine-tuning stops.",
        "weight_averaging": "Keep the average of the weights over the second half of the epochs, "
        "unless one epoch is clearly better on the validation part; `--no-weight-averaging` keeps "
        "the best epoch.",
        "calibrated": "Make held-out probabilities mean what they say, by a temperature.",
        "class_weight": "`balanced` makes every class count alike, however many pictures it has.",
        "soft_targets": "Train on the probabilities of labels where the data has them (elpv); "
        "`--no-soft-targets` on the likeliest label alone.",
        "horizontal_flip": "Views: mirror left and right.",
        "vertical_flip": "Views: mirror top and bottom.",
        "quarter_turns": "Views: turn by 90, 180 and 270 degrees.",
        "rotation": "Views: largest turn, as a share of a full circle (0.02 is 7 degrees).",
        "zoom": "Views: largest change of scale (0.05 is 5 %).",
        "translation": "Views: largest shift, as a share of the side.",
        "contrast": "Views: largest change of contrast (0.2 is 20 %).",
        "test_views": "Flips and quarter turns that a prediction is averaged over, the picture "
        "itself included.",
    },
    num_first=6,
    choices={"backbone": BACKBONES, "unfreeze_from": (None,), **transfer_config.CHOICES},
    metavars={"unfreeze_from": "LAYER", "head_layers": "LAYER/avg"},
    parsers={},
)

VAE = Flags(
    config=vae_config.TrainConfig,
    help={
        "latent_dim": "Number of latent units.",
        "architecture": "`dense` is fast on small pictures, `residual` (deeper) learns more in "
        "half an hour; `conv` suits larger ones; `resnet` (deeper convolutions) wants a GPU.",
        "likelihood": "p(x|z): bernoulli, continuous_bernoulli, gaussian, learned_gaussian or "
        "discretized_logistic. `auto` takes bernoulli for mnist and discretized_logistic for "
        "other pictures.",
        "beta": "Weight of the KL divergence; 1 gives the ELBO.",
        "minutes": "Time for training: the number of epochs follows from the speed of the first.",
        "epochs": "Passes over the pictures, instead of --minutes. With neither as many as make "
        "10,000 steps, at least 20.",
        "image_size": "Pixels that pictures are resized to: 64, or 48x64 (height x width). By "
        "default small pictures stay as they are and others get a longest side of 64.",
        "seed": "Decides the split, weights, order and noise.",
        "hidden_units": "Width of a hidden layer of the encoder (conv and resnet: filters at a "
        "size), mirrored in the decoder; repeat it for each layer. By default what suits the "
        "architecture.",
        "activation": "Of the hidden layers; `auto` is relu for conv, silu for resnet and tanh for "
        "others.",
        "binarization": "`dynamic` draws black and white pixels anew in every epoch, `static` "
        "once, `none` keeps grey values; `auto` suits the likelihood.",
        "num_samples": "k of the importance-weighted bound; 1 gives the ELBO.",
        "final_samples": "k of the importance-weighted bound in the last quarter of the training; "
        "1 changes nothing.",
        "backward_samples": "Of several samples, those that the gradient goes through, drawn by "
        "their weights: faster, with more noise; 0 takes all.",
        "prior": "p(z): `normal`, or learned: `mixture` of Gaussians, `vamp` (posteriors of "
        "learned pictures) or `flow`.",
        "prior_components": "Gaussians of the mixture, or pictures of `vamp`.",
        "flow_couplings": "Steps of `flow`.",
        "flow_units": "Width of the two hidden layers of each step of `flow`.",
        "second_latent_dim": "Units of a second stochastic layer above the first; 0 for none.",
        "inference": "Of two layers: which latents are inferred first, `top_down` (best with the "
        "plain gradient and a warm-up) or `bottom_up`.",
        "gradient": "`plain`; `stl` (sticking the landing) has less noise with one sample, `dreg` "
        "(doubly reparameterized) with several.",
        "final_gradient": "The gradient of the last quarter of the training; `plain` after `stl` "
        "lets units go that say next to nothing.",
        "conditional": "Tell encoder and decoder the class, so that samples can be asked for by "
        "class.",
        "batch_size": "Pictures in a step.",
        "learning_rate": "At the start; it falls along a cosine.",
        "warmup_epochs": "Epochs over which the weight of the KL divergence rises to its value.",
        "free_bits": "Nats per latent unit that the KL divergence does not punish.",
        "weight_average": "Decay per step of the running average of the weights; 0 is none.",
        "weight_decay": "Part of the kernels that a step with learning rate 1 would take away "
        "(AdamW); 0 is none. It pays in long trainings.",
        "precision": "Number format of the matrix products; `auto` is that of Keras, float32 "
        "unless you changed it, which trains faster than bfloat16 on AMX, too.",
    },
    num_first=8,
    choices=vae_config.CHOICES,
    # The five names of likelihoods side by side would be wider than a terminal.
    metavars={"likelihood": "NAME", "image_size": "PIXELS"},
    parsers={"image_size": parse_size},
    presets={
        "quick": "10 minutes on two cores, 82.3 nats on MNIST",
        "good": "half an hour, 81.3 nats",
        "best": "an hour, 80.9 nats",
        "burda-1": "the networks of Burda et al. 2016, one sample",
        "burda-5": "the same, five samples",
        "burda-50": "five samples, then fifty",
        "burda-two": "their two stochastic layers",
    },
)


GAN = Flags(
    config=gan_config.TrainConfig,
    help={
        "architecture": "`dcgan` (strided convolutions) is fast; `resnet` (residual blocks) wants "
        "more time, or a GPU.",
        "loss": "Of the game: `non_saturating`, `hinge` or `wasserstein`.",
        "autoencoder": "Train an encoder too (a VAE/GAN), so that pictures can be reconstructed.",
        "minutes": "Time for training: the number of epochs follows from the speed of the first.",
        "epochs": "Passes over the pictures, instead of --minutes. With neither as many as make "
        "10,000 steps, at least 5.",
        "image_size": "Pixels that pictures are resized to: 64, or 48x64 (height x width). By "
        "default small pictures stay as they are and others get a longest side of 64.",
        "seed": "Decides the split, weights, order and noise.",
        "conditional": "Tell both networks the class, so that pictures can be asked for by class.",
        "augmentation": "Changes of all that the discriminator sees: `geometric` (shifts, cut-outs)"
        " or `all` (colours too); `auto` is all for fewer than 500 pictures, else none.",
        "latent_dim": "Number of latent units.",
        "filters": "Filters of a convolution of the discriminator, mirrored in the generator; "
        "repeat it for each halving of the size. By default what suits the size.",
        "penalty": "On the discriminator's gradient: `gradient` (WGAN-GP) or `r1`; `auto` is "
        "gradient for wasserstein, else none.",
        "penalty_weight": "Weight of the penalty in the discriminator's loss; 0 takes 10.",
        "normalization": "In the discriminator: `batch`, `spectral` (kernels over their largest "
        "singular value) or `none`; `auto` is none beside a penalty, spectral for resnet, "
        "wasserstein and a VAE/GAN, and batch else.",
        "reconstruction_weight": "VAE/GAN: weight of reconstructions, KL divergence included, "
        "where being taken for real has 1.",
        "kl_weight": "VAE/GAN: weight of the KL divergence, where the reconstruction error has 1.",
        "batch_size": "Pictures in a step; 0 takes 64, and 16 of fewer than 10,000 pictures.",
        "discriminator_steps": "Steps of the discriminator for one of the generator; wasserstein "
        "wants 5.",
        "learning_rate": "Of the generator, at the start; it falls along a cosine.",
        "discriminator_learning_rate": "Of the discriminator, likewise.",
        "beta_1": "Decay of Adam's average of gradients.",
        "beta_2": "Decay of Adam's average of squared gradients.",
        "weight_average": "Decay per step of the running average of the generator's weights, which "
        "is what is kept; 0 is none.",
        "precision": "Number format of the matrix products; `auto` takes what is fast here.",
    },
    num_first=7,
    choices=gan_config.CHOICES,
    metavars={"image_size": "PIXELS"},
    parsers={"image_size": parse_size},
)


# Whoever trains with several beta names them all at once; bounds of several samples have none.
VAE_CURVE = dataclasses.replace(
    VAE,
    help={
        name: text
        for name, text in VAE.help.items()
        if name not in ("beta", "num_samples", "final_samples", "backward_samples")
    },
    num_first=VAE.num_first - 1,
    presets={},
)


def _typed(context: typer.Context, names: Iterable[str]) -> set[str]:
    """Those options that stand on the command line, whatever their value."""
    sources = {name: context.get_parameter_source(name) for name in names}
    return {name for name, source in sources.items() if source and source.name != "DEFAULT"}


def with_config_flags(flags: Flags) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replaces a command's `settings` by one option for each setting of a training.

    The first few stand where `settings` stood and the others behind everything, so that `--help`
    begins with what is changed most often.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [inspect.Parameter("context", kind, annotation=typer.Context)]
        options = [*flags.preset_option(), *flags.options()]
        num_first = flags.num_first + len(options) - len(flags.help)
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            own = [parameter.replace(kind=kind)]
            parameters += options[:num_first] if parameter.name == "settings" else own
        parameters += options[num_first:]

        def wrapped(context: typer.Context, **values: Any) -> None:
            given = {name: values.pop(name) for name in flags.help}
            preset = values.pop("preset", None)
            settings = flags.settings(given, preset=preset, typed=_typed(context, given))
            command(settings=settings, **values)

        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapped

    return decorate
