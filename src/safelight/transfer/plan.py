"""What a configuration means for a given network: where it is cut, and what its head sees."""

from __future__ import annotations

import dataclasses

import keras

from safelight.transfer import backbones
from safelight.transfer.config import TrainConfig
from safelight.transfer.features import FeatureLayer


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a configuration means for a given network.

    Attributes:
        cut: The last frozen layer; `None` where the whole network is trained.
        head_layers: What the head sees.
        fine_tunes: Whether anything but the head is trained.
        cached: Whether activations of the cut stand in for the frozen part.
        lower_layers: Those of `head_layers` that do not come from the cut: frozen too, so that
            their pooled activations are kept beside its own.
    """

    cut: str | None
    head_layers: tuple[FeatureLayer, ...]
    fine_tunes: bool
    cached: bool
    lower_layers: tuple[FeatureLayer, ...] = ()

    @classmethod
    def make(cls, network: keras.Model, config: TrainConfig) -> Plan:
        """The plan, with names checked against the network.

        Args:
            network: A backbone, or a classifier made of one.
            config: The settings.

        Raises:
            ValueError: A layer that the network does not have, or nothing left to freeze.
        """
        last = [layer.name for layer in network.layers if not layer.name.startswith("head_")][-1]
        first = config.unfreeze_from
        if first == "auto":
            first = backbones.find_backbone(config.backbone).unfreeze_from
        everything = first == "all" or not config.pretrained
        cut = None if everything else last
        if first is not None and not everything:
            cut = backbones.cut_layer(network, first)
        if config.head_layers:
            head_layers = tuple(_parse_layer(text) for text in config.head_layers)
        else:
            there = {layer.name for layer in network.layers}
            stages = backbones.find_backbone(config.backbone).head_layers
            names = [name for name in stages if name in there] or [last]
            head_layers = tuple(
                FeatureLayer(name, pooling) for pooling in ("avg", "max") for name in names
            )
        for wanted in head_layers:
            backbones.get_layer(network, wanted.layer)
        lower = () if cut is None else _lower_layers(network, cut, head_layers)
        tunes = (everything or first is not None) and config.epochs > 0
        return cls(cut, head_layers, tunes, config.cached and cut is not None, lower)

    @property
    def kept_layers(self) -> tuple[FeatureLayer, ...]:
        """The activations that predictions can start from.

        Those of the cut and of the head layers below it, or, without fine-tuning, what the head
        sees.
        """
        if self.fine_tunes and self.cut is not None:
            return (FeatureLayer(self.cut), *self.lower_layers)
        return self.head_layers


def _lower_layers(
    network: keras.Model, cut: str, head_layers: tuple[FeatureLayer, ...]
) -> tuple[FeatureLayer, ...]:
    """The head layers that are not computed from the cut."""

    def is_above(head: FeatureLayer) -> bool:
        name = backbones.get_layer(network, head.layer).name
        return cut in {layer.name for layer in backbones.layers_until(network, name)}

    return tuple(head for head in head_layers if not is_above(head))


def _parse_layer(text: str) -> FeatureLayer:
    layer, _, pooling = text.partition("/")
    if pooling not in ("", "avg", "max"):
        raise ValueError(f"head layer {text!r}: expected LAYER/avg or LAYER/max.")
    return FeatureLayer(layer, "max" if pooling == "max" else "avg")
