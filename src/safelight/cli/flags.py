"""The flags of `transfer train`: one for each setting of a training, the important ones first.

Loads no Keras: `--help` reads it.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_type_hints

import typer

from safelight.transfer.config import CHOICES, TrainConfig

BACKBONES = ("vgg16", "vgg19", "resnet50", "mobilenetv2", "efficientnetv2b0", "convnexttiny")

# In the order of --help. Tests hold it against TrainConfig, so that no setting lacks its flag.
HELP = {
    "backbone": "The pretrained network.",
    "unfreeze_from": "The first layer or block (block5) that is trained after the head. `all` "
    "trains everything, `none` only the head, `auto` the network's last block.",
    "image_size": "Side in pixels that pictures are resized to.",
    "views": "Augmented views of each training picture, the picture itself included.",
    "epochs": "Most epochs of fine-tuning.",
    "seed": "Decides the split, views, order and dropout.",
    "pretrained": "`--no-pretrained` starts from random weights and trains everything: it shows "
    "what transfer is worth.",
    "cached": "`--no-cached` runs the frozen layers anew in every epoch, with fresh augmentation: "
    "slower.",
    "precision": "Number format of the frozen layers; `auto` takes bfloat16 where the processor "
    "is fast at it.",
    "head": "`logistic` regression, its strength found by cross-validation, or a `dense` layer "
    "with dropout.",
    "head_layers": "What the head sees, LAYER/avg or LAYER/max; may be repeated. By default the "
    "averages of the last frozen layer and of the last layer.",
    "hidden_units": "Width of the dense head.",
    "dropout": "Share of the head's inputs dropped in training.",
    "learning_rate": "At the start of fine-tuning; it falls to zero along a cosine.",
    "batch_size": "Pictures in a step of fine-tuning.",
    "optimizer": "Of fine-tuning.",
    "weight_decay": "Of adamw.",
    "patience": "Epochs without a better validation loss before fine-tuning stops.",
    "class_weight": "`balanced` makes every class count alike, however many pictures it has.",
    "soft_targets": "Train on the probabilities of labels where the data has them (elpv); "
    "`--no-soft-targets` on the likeliest label alone.",
    "horizontal_flip": "Views: mirror left and right.",
    "vertical_flip": "Views: mirror top and bottom.",
    "rotation": "Views: largest turn, as a share of a full circle (0.02 is 7 degrees).",
    "zoom": "Views: largest change of scale (0.05 is 5 %).",
    "translation": "Views: largest shift, as a share of the side.",
    "contrast": "Views: largest change of contrast (0.2 is 20 %).",
}
_NUM_FIRST = 6
_METAVARS = {"unfreeze_from": "LAYER", "head_layers": "LAYER/avg"}


def with_config_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Replaces a command's `settings` by one option for each field of `TrainConfig`.

    The first few stand where `settings` stood and the others behind everything, so that `--help`
    begins with what is changed most often.
    """
    parameters: list[inspect.Parameter] = []
    options = _options()
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
        parameters += options[:_NUM_FIRST] if parameter.name == "settings" else own
    parameters += options[_NUM_FIRST:]

    def wrapped(**values: Any) -> None:
        command(settings=_settings({name: values.pop(name) for name in HELP}), **values)

    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped


def _settings(values: dict[str, Any]) -> TrainConfig:
    values["head_layers"] = tuple(values["head_layers"] or ())
    if values["class_weight"] == "none":
        values["class_weight"] = None
    if values["unfreeze_from"] == "none":
        values["unfreeze_from"] = None
    return TrainConfig(**values)


def _options() -> list[inspect.Parameter]:
    hints = get_type_hints(TrainConfig)
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    defaults |= {"head_layers": None}
    defaults["class_weight"] = defaults["class_weight"] or "none"
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=defaults[name],
            annotation=Annotated[
                _type(name, hints[name]), typer.Option(help=text, metavar=_METAVARS.get(name))
            ],
        )
        for name, text in HELP.items()
    ]


def _type(name: str, hint: Any) -> Any:
    if name == "backbone":
        return Literal[BACKBONES]
    if name in CHOICES:
        return Literal[tuple(choice or "none" for choice in CHOICES[name])]
    return list[str] | None if name == "head_layers" else hint
