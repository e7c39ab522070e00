"""One training on several devices: each computes its part of every batch (data parallelism).

    with devices.sharing(2):  # `safelight vae train --devices 2`, with KERAS_BACKEND=jax
        vae.train(model, images)

Weights, pictures and the state of Adam lie on every device; the rows of a batch are dealt out, and
the gradient is the mean over all of them, so that the numbers are those of one device but for the
order of sums. Layouts are those of `keras.distribution`, which knows JAX alone; XLA puts the
exchange of gradients where it is needed.

On several machines the same command runs on each, told apart by Keras' own variables
KERAS_DISTRIBUTION_JOB_ADDRESSES (`host:port` of the first), KERAS_DISTRIBUTION_NUM_PROCESSES and
KERAS_DISTRIBUTION_PROCESS_ID. The first process writes the run; the others only compute.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

_AXIS = "batch"
_NUM_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"


@dataclasses.dataclass(frozen=True, eq=False)
class Devices:
    """Devices that share a training.

    Attributes:
        mesh: They, in one row.
        process: Which of the processes this is; the first is 0.
        num_processes: That take part.
    """

    mesh: keras.distribution.DeviceMesh
    process: int = 0
    num_processes: int = 1

    @property
    def num(self) -> int:
        """How many there are, in all processes."""
        return int(self.mesh.shape[0])

    @property
    def leads(self) -> bool:
        """Whether this process writes what comes out."""
        return self.process == 0

    def copy(self, tensor: Any) -> Any:
        """The whole of a tensor or array on every device."""
        return self._lay(tensor, ())

    def split(self, tensor: Any, axis: int = 0) -> Any:
        """A part of a tensor on each device, along an axis that they divide."""
        return self._lay(tensor, (*[None] * (axis % len(tensor.shape)), _AXIS))

    def _lay(self, tensor: Any, axes: Iterable[str | None]) -> Any:
        layout = keras.distribution.TensorLayout(tuple(axes), self.mesh)
        return keras.distribution.distribute_tensor(tensor, layout)

    def check_batch(self, batch_size: int) -> None:
        """Whether a batch can be dealt out evenly.

        Raises:
            ValueError: It cannot.
        """
        if batch_size % self.num:
            raise ValueError(
                f"batch_size={batch_size} on {self.num} devices: expected a multiple of {self.num}."
            )

    def check_agreement(self, step: int) -> None:
        """Whether all processes are at the same step; they would wait for each other for ever.

        Raises:
            ValueError: They are not.
        """
        if self.num_processes == 1:
            return
        from jax.experimental import multihost_utils

        steps = np.ravel(multihost_utils.process_allgather(np.array([step])))
        if len(set(steps.tolist())) > 1:
            raise ValueError(
                f"the processes would go on from different steps ({', '.join(map(str, steps))}): "
                "expected a run folder that all of them see, or a new one."
            )


_CURRENT: contextvars.ContextVar[Devices | None] = contextvars.ContextVar("devices", default=None)


def current_devices() -> Devices | None:
    """Those of the innermost `sharing`; `None` is one."""
    return _CURRENT.get()


@contextlib.contextmanager
def sharing(num: int) -> Iterator[None]:
    """Inside, every batch of a training is shared by so many devices.

    Raises:
        ValueError: As of `find_devices`.
    """
    token = _CURRENT.set(find_devices(num))
    try:
        yield
    finally:
        _CURRENT.reset(token)


def is_leader(num: int) -> bool:
    """Whether this process writes what comes out of a training on so many devices.

    Raises:
        ValueError: As of `find_devices`.
    """
    found = find_devices(num)
    return found is None or found.leads


def _join() -> None:
    """Waits for the other processes."""
    try:
        keras.distribution.initialize()
    except RuntimeError as error:
        raise ValueError(
            f"{_NUM_PROCESSES}={os.environ[_NUM_PROCESSES]}, but the processes did not meet: "
            "expected to be asked before anything is computed, and that all of them reach the "
            f"first address ({error})."
        ) from error


def find_devices(num: int) -> Devices | None:
    """The devices that a training is spread over; `None` for one.

    Where Keras' variables name several processes, this one joins them, which waits for the others.

    Args:
        num: Devices in all processes.

    Raises:
        ValueError: There are not so many, or Keras runs on a backend that cannot do it.
    """
    if num < 1:
        raise ValueError(f"devices={num}: expected at least 1.")
    if num == 1:
        return None
    if keras.backend.backend() != "jax":
        raise ValueError(
            f"devices={num} with Keras on {keras.backend.backend()}: expected KERAS_BACKEND=jax, "
            "the one backend that deals out a batch."
        )
    import jax

    if int(os.environ.get(_NUM_PROCESSES, "1")) > 1 and not jax.distributed.is_initialized():
        _join()
    there = keras.distribution.list_devices()
    if len(there) < num:
        raise ValueError(
            f"devices={num}: there are {len(there)} ({', '.join(there[:4])}); expected at most "
            "that. A processor counts as one: XLA_FLAGS=--xla_force_host_platform_device_count="
            f"{num} makes it {num}."
        )
    if jax.process_count() > 1 and len(there) != num:
        raise ValueError(
            f"devices={num} in {jax.process_count()} processes: expected all {len(there)} devices "
            "that they have."
        )
    mesh = keras.distribution.DeviceMesh((num,), (_AXIS,), there[:num])
    return Devices(mesh, jax.process_index(), jax.process_count())
