"""pythae's `VAE.get_nll` on given weights: as a reader of its documentation calls it, and at best.

It answers +log p(x), averaged over the images it is given, so it is asked one image at a time.
"""

from __future__ import annotations

import functools
import importlib.metadata
import time

import numpy as np
import torch
from pythae.models import VAE

from peers.vae_pythae import build_model
from vae.likelihood import Answer, Question, answer_all, timed

_DEFAULT_BATCH = 100
_BATCHES = (100, 250, 500, 1000, 2500, 5000)


def estimate(
    model: VAE, data: torch.Tensor, num_samples: int, batch_size: int, seed: int
) -> np.ndarray:
    """Log p(x) of each image, nats."""
    torch.manual_seed(seed)
    values = [
        model.get_nll(image.unsqueeze(0), n_samples=num_samples, batch_size=batch_size)
        for image in data
    ]
    return np.array(values)


def best_batch(model: VAE, data: torch.Tensor, num_samples: int) -> int:
    """The batch size that is fastest for two images; only such as divide the number of samples."""
    seconds = {}
    for size in (size for size in _BATCHES if num_samples % size == 0):
        estimate(model, data[:1], num_samples, size, 0)
        start = time.perf_counter()
        estimate(model, data[:2], num_samples, size, 0)
        seconds[size] = time.perf_counter() - start
    return min(seconds, key=seconds.__getitem__)


def answer(question: Question) -> tuple[list[Answer], dict[str, str]]:
    """Both ways, with a thread a core."""
    torch.set_num_threads(question.num_threads)
    model = build_model(question.weights).eval()
    data = torch.from_numpy(question.pixels.astype("float32")).reshape(-1, 1, 28, 28)
    answers = []
    for number in question.samples:
        with torch.no_grad():
            best = best_batch(model, data, number)
        for is_best in (True, False):
            batch = best if is_best else _DEFAULT_BATCH
            name = "pythae, no_grad and best batch" if is_best else "pythae, defaults"
            function = functools.partial(estimate, model, data, number, batch)
            settings = {"batch_size": batch, "no_grad": is_best, "threads": question.num_threads}
            with torch.set_grad_enabled(not is_best):
                answers.append(timed(name, number, question.repeats, function, settings))
    versions = {
        "pythae": importlib.metadata.version("pythae"),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    return answers, versions


if __name__ == "__main__":
    answer_all(answer)
