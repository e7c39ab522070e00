"""How long a training lasts, and what changes from step to step meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

BETAS = 0.9, 0.999  # of Adam, as in Keras
# Part of the time that is spent at the full learning rate before the end is reckoned from the
# speed so far; a cosine has hardly begun to fall by then.
_PROBE = 0.05
# Part of the time by which the end may be off before it is reckoned again, and the latest part,
# from which the speed is taken.
_TOLERANCE, _WINDOW = 0.02, 0.1
# Part of the time that is planned for; the rest is for the last look at the validation images.
_ALMOST = 0.99


def step_sizes(
    learning_rates: np.ndarray, first_step: int, betas: tuple[float, float] = BETAS
) -> np.ndarray:
    """Adam's step sizes: learning rates with its correction for averages that start at 0.

    Kingma & Ba 2015 (arXiv 1412.6980), section 2, in the form that Keras uses.

    Args:
        learning_rates: `(steps,)`.
        first_step: Steps done before the first of them.
        betas: Decays of Adam's averages.
    """
    step = first_step + 1.0 + np.arange(len(learning_rates))
    return learning_rates * np.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)


def average_decays(decay: float, first_step: int, num_steps: int) -> np.ndarray:
    """How much of the running average each step keeps: `min(decay, (1 + t) / (10 + t))`.

    The short memory at the start lets go of the random weights.

    Args:
        decay: In the long run; 0 makes the average the weights themselves.
        first_step: Steps done before.
        num_steps: Length of the result.
    """
    step = first_step + 1.0 + np.arange(num_steps)
    return np.minimum(decay, (1 + step) / (10 + step))


@dataclasses.dataclass(frozen=True)
class Plan:
    """When a training ends, and how far it has come at each step.

    Attributes:
        knots: `(step, progress)`, both rising; straight lines between them. Progress is 0 until the
            first and 1 from the last; a single knot is the plan of one whose end nobody knows yet.
    """

    knots: tuple[tuple[int, float], ...] = ((0, 0.0),)

    @classmethod
    def until(cls, num_steps: int, *, start: int = 0) -> Plan:
        """Progress at an even pace from one step to the last."""
        return cls(((start, 0.0), (num_steps, 1.0)))

    @classmethod
    def from_json(cls, knots: Sequence[Sequence[Any]]) -> Plan:
        """The plan whose `knots` these are, as JSON gives them back."""
        return cls(tuple((int(step), float(progress)) for step, progress in knots))

    @property
    def num_steps(self) -> float:
        """Steps in all; infinity if nobody knows yet."""
        return self.knots[-1][0] if len(self.knots) > 1 else math.inf

    def progress(self, steps: np.ndarray | int) -> np.ndarray:
        """From 0 to 1, after so many steps."""
        knots = np.array(self.knots)
        return np.interp(np.asarray(steps, float), knots[:, 0], knots[:, 1])

    def learning_rates(self, learning_rate: float, first_step: int, num_steps: int) -> np.ndarray:
        """Half a cosine from `learning_rate` down to 0 at the end (Loshchilov & Hutter 2017).

        Returns:
            `(num_steps,)`, the first for the step after `first_step` steps.
        """
        progress = self.progress(first_step + np.arange(num_steps))
        return learning_rate * 0.5 * (1 + np.cos(math.pi * progress))

    def moved(self, step: int, num_steps: int) -> Plan:
        """The same up to `step`; from there at an even pace to another end."""
        passed = tuple(knot for knot in self.knots if knot[0] < step)
        return Plan((*passed, (step, float(self.progress(step))), (num_steps, 1.0)))


class Stopwatch:
    """Wall seconds, each kind for itself, and steps; those of the runs before included.

    Attributes:
        started: When, by `time.perf_counter`.
        counts: Seconds `"before"`, of `"compilation"`, `"validation"` and `"stepping"`; and
            `"steps"` done in the last of these.
    """

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.counts = dict.fromkeys(
            ("before", "compilation", "validation", "stepping", "steps"), 0.0
        )
        self._known = {"steps": 0.0, "stepping": 0.0}

    @contextlib.contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Adds what happens within it to one of `counts`."""
        started = time.perf_counter()
        yield
        self.counts[name] += time.perf_counter() - started

    def total(self) -> float:
        """Seconds in all."""
        return self.counts["before"] + time.perf_counter() - self.started

    def steps_per_second(self) -> float:
        """Since the speed was forgotten, or from the start."""
        steps, seconds = (self.counts[name] - self._known[name] for name in self._known)
        return steps / max(seconds, 1e-9)

    def forget_speed(self) -> None:
        """Takes the speed from what follows."""
        self._known = {name: self.counts[name] for name in self._known}


class Pace:
    """Turns a time into a number of steps, from the speed so far.

    The first twentieth of the time goes by at the full learning rate; then the end is reckoned.
    It is moved only if it comes to lie more than 2 % of the time too early or late, which bends the
    cosine a little instead of cutting it off.

    Args:
        seconds: The time for everything since `started`, compilation and validation included.
        started: What `now` said at the start.
        now: A clock.
    """

    def __init__(
        self, seconds: float, *, started: float, now: Callable[[], float] = time.perf_counter
    ) -> None:
        self._seconds, self._started, self._now = seconds, started, now
        self._marks: list[tuple[int, float]] = []

    def revise(self, plan: Plan, step: int) -> Plan:
        """Looks at the clock after `step` steps; to be called after each block of steps.

        Returns:
            The plan, or another one.
        """
        now = self._now()
        # The first mark is set after compilation.
        self._marks.append((step, now))
        while len(self._marks) > 2 and now - self._marks[1][1] >= _WINDOW * self._seconds:
            self._marks.pop(0)
        done, elapsed = step - self._marks[0][0], now - self._marks[0][1]
        if done < 1 or elapsed <= 0 or step >= plan.num_steps:
            return plan
        left = self._started + _ALMOST * self._seconds - now
        end = step + max(1, round(left * done / elapsed))
        if plan.num_steps == math.inf:
            known = elapsed >= _PROBE * self._seconds or left <= 0
            return Plan.until(end, start=step) if known else plan
        off = abs(end - plan.num_steps) * elapsed / done
        return plan.moved(step, end) if off > _TOLERANCE * self._seconds else plan

    def forget(self) -> None:
        """Takes the speed from what follows, since steps will cost something else from now on."""
        self._marks.clear()

    def total(self, step: int) -> int:
        """How many steps there may be in all, by the clock alone; for a progress bar."""
        fraction = (self._now() - self._started) / self._seconds
        return max(step + 1, round(step / max(fraction, 1e-3)))
