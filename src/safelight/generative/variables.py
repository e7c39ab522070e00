"""The variables of a model, held by a compiled loop in place of the model's own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

Place = tuple[str, int, str]
"""A tensor of a state: in which list, which of it, and the name under which it is kept."""

_OTHERS = 3  # a stream of random numbers beside those of the loops


class Variables:
    """A model's variables: those that are trained, and the others.

    Args:
        model: It.
        parts: Networks inside it whose layers may have the same names, each with a name.

    Attributes:
        trained: Its trainable variables.
        others: The others.
        seeds: Which of these are the states of generators of random numbers.
        names: Of `"weights"` and of `"others"`.
    """

    def __init__(self, model: keras.Layer, parts: Mapping[str, keras.Layer] | None = None) -> None:
        self.trained = list(model.trainable_variables)
        self.others = list(model.non_trainable_variables)
        self.seeds = [i for i, v in enumerate(self.others) if "seed_generator_state" in v.path]
        self.names = {
            "weights": _name_all(model, parts or {}, self.trained),
            "others": _name_all(model, parts or {}, self.others),
        }

    def places(self, *columns: str) -> Iterator[Place]:
        """What makes up a state: place, number, name of all tensors that outlive an epoch.

        Args:
            columns: Places that have a tensor for each trained variable; `"others"` comes last.
        """
        for place in (*columns, "others"):
            names = self.names["others" if place == "others" else "weights"]
            for i, name in enumerate(names):
                # The generators' states have names of chance, and every epoch sets them anew.
                if place != "others" or i not in self.seeds:
                    yield place, i, f"{place}/{name}"

    def set_seeds(self, others: list[np.ndarray], seed: int, epoch: int) -> None:
        """Sets every `SeedGenerator` to where it stands at the start of an epoch."""
        for place in self.seeds:
            # Backends may add seed and counter up; far apart, two generators never meet.
            start = np.random.default_rng([seed, epoch, _OTHERS, place]).integers(2**31 - 1)
            others[place] = np.array([start, 0], others[place].dtype)

    def paired(self, weights: list[Any], others: list[Any]) -> list[tuple[Any, Any]]:
        """Each variable with the value that it is to have; for `hold`."""
        pairs = (*zip(self.trained, weights, strict=True), *zip(self.others, others, strict=True))
        return list(pairs)


@contextlib.contextmanager
def hold(pairs: Iterable[tuple[Any, Any]]) -> Iterator[keras.StatelessScope]:
    """Within it variables have these values in place of their own."""
    with keras.StatelessScope(state_mapping=pairs) as scope:
        yield scope


def is_convolutional(model: keras.Layer) -> bool:
    """Whether there is a convolution in it, which not every compiler makes faster."""
    return any("Conv" in type(layer).__name__ for layer in model._flatten_layers())


def is_kernel(name: str) -> bool:
    """Whether the variable of that name, as `Variables` names it, is a layer's kernel."""
    return name.split(":", maxsplit=1)[0].endswith("/kernel")


def read(tensor: Any) -> np.ndarray:
    """A tensor as an array of its own memory."""
    return np.array(ops.convert_to_numpy(tensor))


def read_state(state: Mapping[str, list[Any]], places: Iterable[Place]) -> dict[str, np.ndarray]:
    """All that a training goes on from: a name to each array."""
    return {name: read(state[place][i]) for place, i, name in places}


def write_state(
    state: Mapping[str, list[Any]],
    places: Sequence[Place],
    arrays: Mapping[str, np.ndarray],
    tensor: Callable[[np.ndarray], Any],
) -> None:
    """Puts arrays that `read_state` gave back into a state.

    Raises:
        ValueError: They are those of another model.
    """
    shapes = {name: array.shape for name, array in arrays.items()}
    own = {name: tuple(state[place][i].shape) for place, i, name in places}
    if shapes != own:
        differing = sorted(n for n in {**shapes, **own} if shapes.get(n) != own.get(n))
        raise ValueError(
            f"the weights are those of another model: {differing[0]} has the shape "
            f"{shapes.get(differing[0])}, expected {own.get(differing[0])}. Were they left by an "
            "earlier version? Then begin anew, into another folder or with --overwrite."
        )
    for place, i, name in places:
        state[place][i] = tensor(arrays[name])


def _name_all(
    model: keras.Layer, parts: Mapping[str, keras.Layer], variables: list[Any]
) -> list[str]:
    """The variables' paths, those of the parts told apart."""
    owners = {id(v): name for name, part in parts.items() for v in part.variables}
    names = [f"{owners.get(id(v), model.name)}/{v.path}" for v in variables]
    return [f"{n}:{i}" if names.count(n) > 1 else n for i, n in enumerate(names)]
