"""Where in a picture a classifier finds what it answers: maps as large as the picture it sees.

    explainer = Explainer(classifier, references=find_references(classifier, training_pictures))
    found = explainer.explain(pictures)        # of the classes that it says
    found.maps[0]                              # (height, width), in logits: positive speaks for it

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) weighs each channel of a layer by the gradient
of a class's logit. What that means for heads on several layers and for averaged views is derived
in docs/theory/explanations.md; in short:

- The layers are those whose pooled activations the head reads. Gradients are taken of the head,
  that is, with the other layers held fixed, so that the layers' maps can be added.
- A map is in logits: its mean over the picture is what its layers add to the logit, to first order
  and for averages exactly. Selvaraju's own is this map divided by its number of positions.
- A classifier that averages views is explained in each of them; the maps are turned back and
  averaged, as the logits are.
- With `references` a map is of the difference to pictures of the other classes, place by place,
  and says where a picture is unlike them: what is at that place in every picture cancels.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import ops

from safelight.images import resize
from safelight.transfer import backbones, models
from safelight.transfer.augmentation import turn
from safelight.transfer.features import FeatureLayer
from safelight.transfer.gradients import gradients_of
from safelight.transfer.references import References

Method = Literal["grad-cam", "hires-cam", "cam"]
_BATCH_SIZE = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Explanations:
    """Maps of some pictures.

    Attributes:
        maps: `(n, height, width)` float32 in logits, of the picture as the network sees it:
            positive where it speaks for the class, negative where it speaks against it. With
            references each is zero on average: positive where it says more than elsewhere.
        classes: `(n,)` what is explained.
        logits: `(n, num_classes)` float64, the mean over the views.
        shifts: `(n,)` what was taken off to make that average zero: how far, to first order, the
            logit lies above that of the references. Zero without them.
    """

    maps: np.ndarray
    classes: np.ndarray
    logits: np.ndarray
    shifts: np.ndarray

    @property
    def evidence(self) -> np.ndarray:
        """What speaks for the class, the rest being 0: the map that Grad-CAM shows."""
        return np.maximum(self.maps, 0.0)


class Explainer:
    """Explains the answers of a classifier, whatever its head; always through Keras, in float32.

    Args:
        classifier: A model from `models.build_classifier`, trained or loaded.
        layers: Of those that the head reads, the ones whose maps are added; by default all.
        method: `"grad-cam"`; `"hires-cam"` multiplies gradients with activations position by
            position before it sums (Draelos and Carin 2020, arXiv 2011.08891), which differs where
            the head reads maxima; `"cam"` takes the weights of a linear head on averages in place
            of gradients (Zhou et al. 2016, arXiv 1512.04150): the logit is the mean of the map plus
            `bias`, exactly.
        references: What the layers do for pictures of other classes, as from `find_references`;
            `None` explains the picture for itself.

    Attributes:
        layers: Names of these layers.
        bias: `(num_classes,)` of a linear head on averages; `None` for `method` other than `"cam"`.

    Raises:
        ValueError: An unknown method or layer, `"cam"` for a head that has no such weights, or
            references of another classifier.
    """

    def __init__(
        self,
        classifier: keras.Model,
        *,
        layers: Sequence[str] | None = None,
        method: Method = "grad-cam",
        references: References | None = None,
    ) -> None:
        if method not in get_args(Method):
            raise ValueError(f"method={method!r}: expected one of {', '.join(get_args(Method))}.")
        self._all = models.layer_names(classifier)
        self.layers = _check_layers(layers, self._all)
        self._method = method
        self.bias: np.ndarray | None = None
        self._weights: dict[str, np.ndarray] = {}
        if method == "cam":
            self._weights, self.bias = _linear_weights(classifier)
        self._entrance = backbones.find_resizing(classifier)
        self._trunk = backbones.build_trunk(classifier, self._all)
        self._head = models.build_tail(classifier, [FeatureLayer(name) for name in self._all])
        # Compiling costs more than it saves for a dozen pictures, once for each size of a batch.
        self._trunk.run_eagerly = self._head.run_eagerly = True
        self._references = references
        if references is not None:
            shapes = [tuple(output.shape[1:]) for output in self._trunk.outputs]
            references.check(dict(zip(self._all, shapes, strict=True)))

    def explain(
        self, images: Iterable[np.ndarray], classes: Sequence[int] | np.ndarray | None = None
    ) -> Explanations:
        """Maps of pictures for one class each.

        Args:
            images: Arrays `(height, width, 3)` uint8, sizes may differ; read batch by batch.
            classes: `(n,)` the classes to explain; by default what the classifier says.

        Raises:
            ValueError: No picture, not as many classes as pictures, or a class that is not there.
        """
        size = (self._entrance.height, self._entrance.width)
        rest = None if classes is None else iter(np.asarray(classes).tolist())
        found: list[Explanations] = []
        for pixels in _batches(images, size):
            wanted = None if rest is None else list(itertools.islice(rest, len(pixels)))
            found.append(self._explain(pixels, wanted))
        if not found or (rest is not None and next(rest, None) is not None):
            raise ValueError(
                f"{sum(len(each.maps) for each in found)} pictures for classes {classes}: expected "
                "at least one picture, and one class for each."
            )
        names = [field.name for field in dataclasses.fields(Explanations)]
        return Explanations(
            *(np.concatenate([getattr(each, name) for each in found]) for name in names)
        )

    def _explain(self, pixels: np.ndarray, classes: list[int] | None) -> Explanations:
        """Of one batch `(n, height, width, 3)` float32."""
        views = [_View(each, *self._look(pixels, each)) for each in self._entrance.symmetries]
        logits = np.mean([view.logits for view in views], axis=0)
        chosen = logits.argmax(1) if classes is None else _check_classes(classes, logits.shape)
        maps = np.mean(
            [turn(self._map(view, chosen)[..., None], _back(view.symmetry)) for view in views],
            axis=0,
        )[..., 0]
        shifts = maps.mean((1, 2), dtype="float64") * (self._references is not None)
        return Explanations(maps - shifts[:, None, None].astype("float32"), chosen, logits, shifts)

    def _look(self, pixels: np.ndarray, symmetry: int) -> tuple[list[np.ndarray], np.ndarray]:
        """Activations of all layers that the head reads, and logits, under a symmetry."""
        seen = _as_list(self._trunk.predict_on_batch(np.ascontiguousarray(turn(pixels, symmetry))))
        logits = self._head.predict_on_batch(seen if len(seen) > 1 else seen[0])
        return seen, np.asarray(logits, np.float64)

    def _map(self, view: _View, classes: np.ndarray) -> np.ndarray:
        """The sum of the layers' maps `(n, height, width)`, still turned as the view is."""
        size = (self._entrance.height, self._entrance.width)
        total = np.zeros((len(classes), *size), np.float32)
        for name, layer_map in zip(self._all, self._layer_maps(view, classes), strict=True):
            if name in self.layers:
                total += np.stack([resize(each[..., None], size)[..., 0] for each in layer_map])
        return total

    def _layer_maps(self, view: _View, classes: np.ndarray) -> list[np.ndarray]:
        """A map `(n, rows, columns)` for each layer that the head reads."""
        pairs = zip(self._all, view.activations, strict=True)
        told = [seen - self._usual(name, classes) for name, seen in pairs]
        if self._method == "cam":
            weights = [self._weights[name][:, classes] for name in self._all]
            weighed = zip(told, weights, strict=True)
            return [np.einsum("nhwk,kn->nhw", seen, weight) for seen, weight in weighed]
        slopes = zip(told, self._gradients(view.activations, classes), strict=True)
        if self._method == "hires-cam":
            return [(seen * slope).sum(-1) * np.prod(seen.shape[1:3]) for seen, slope in slopes]
        return [np.einsum("nhwk,nk->nhw", seen, slope.sum((1, 2))) for seen, slope in slopes]

    def _usual(self, layer: str, classes: np.ndarray) -> np.ndarray | float:
        """What a layer does for pictures of other classes; 0 without references."""
        return 0.0 if self._references is None else self._references.other_than(layer, classes)

    def _gradients(self, activations: list[np.ndarray], classes: np.ndarray) -> list[np.ndarray]:
        """Of each picture's logit by its activations; pictures do not depend on each other."""
        chosen = np.eye(self._head.output_shape[-1], dtype="float32")[classes]

        def score(tensors: list[Any]) -> Any:
            logits = self._head(tensors if len(tensors) > 1 else tensors[0], training=False)
            return ops.sum(logits * ops.convert_to_tensor(chosen))

        return gradients_of(score, activations)


@dataclasses.dataclass(frozen=True, eq=False)
class _View:
    """What a batch of pictures makes of the network under one symmetry."""

    symmetry: int
    activations: list[np.ndarray]
    logits: np.ndarray


def _back(symmetry: int) -> int:
    """The symmetry that undoes one: a mirroring undoes itself, a turn is turned back."""
    return symmetry if symmetry & 4 else -symmetry & 3


def _as_list(outputs: Any) -> list[np.ndarray]:
    return [np.asarray(each) for each in (outputs if isinstance(outputs, list) else [outputs])]


def _batches(images: Iterable[np.ndarray], size: tuple[int, int]) -> Iterator[np.ndarray]:
    resized = (resize(image, size) for image in images)
    while batch := list(itertools.islice(resized, _BATCH_SIZE)):
        yield np.stack(batch)


def _check_layers(layers: Sequence[str] | None, known: list[str]) -> list[str]:
    chosen = known if layers is None else list(layers)
    if not chosen or not set(chosen) <= set(known):
        raise ValueError(
            f"layers={chosen}: expected some of those that the head reads, {', '.join(known)}."
        )
    return [name for name in known if name in chosen]


def _check_classes(classes: list[int], shape: tuple[int, ...]) -> np.ndarray:
    found = np.asarray(classes)
    fits = len(found) == shape[0] and np.issubdtype(found.dtype, np.integer)
    if not fits or not 0 <= found.min() <= found.max() < shape[1]:
        raise ValueError(
            f"classes {classes} for {shape[0]} pictures: expected one for each, integers from 0 to "
            f"{shape[1] - 1}."
        )
    return found


def _linear_weights(classifier: keras.Model) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A linear head as weights `(channels, num_classes)` of each layer's averages, and a bias.

    The standardisation in front of it is part of both: `((x - mean) / scale) @ kernel + bias`.
    """
    others = [str(head) for head in models.head_layers(classifier) if head.pooling != "avg"]
    bent = {models.SIMILARITIES, "head_hidden", "head_root"} & {x.name for x in classifier.layers}
    if others or bent:
        raise ValueError(
            f"method='cam' for a head that reads {', '.join(others) or 'averages'}"
            f"{' and is not linear' if bent else ''}: expected head='logistic' on averages alone "
            "(head_layers=('LAYER/avg',)); 'grad-cam' explains any head."
        )
    mean, scale = classifier.get_layer(models.STANDARDIZE).get_weights()
    kernel, bias = classifier.get_layer(models.LOGITS).get_weights()
    weights = kernel / scale[:, None]
    parts = np.split(weights, np.cumsum(models.head_widths(classifier))[:-1])
    return dict(zip(models.layer_names(classifier), parts, strict=True)), bias - mean @ weights
