"""What the tests of the explorer share: a run of small pictures, and files for a runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safelight import assets, datasets
from safelight.gan import TrainConfig as GanConfig
from safelight.gan import experiment as games
from safelight.gan.models import build_gan
from safelight.generative import pictures
from safelight.runs import Run
from safelight.vae import TrainConfig, experiment


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Coloured clouds, 18 x 28 pixels, of three classes; one name would be markup if it could."""
    root = tmp_path_factory.mktemp("data") / "clouds"
    rng = np.random.default_rng(0)
    for shift, name in enumerate(["</script><b>red", "green", "blue été"]):
        folder = root / name.replace("/", "∕")
        folder.mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 90, (18, 28, 3))
            pixels[..., shift] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return root


@pytest.fixture(scope="session")
def make_run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Run]:
    """A run folder with a model that has not learned: its weights are drawn, biases too."""

    def make(**settings: Any) -> Run:
        small = {"latent_dim": 5, "hidden_units": (8,), **settings}
        dataset = datasets.from_directory(photos)
        parts = pictures.load_parts(dataset, pictures.split(dataset))
        config = experiment.resolve(TrainConfig(**small), parts)
        folder = tmp_path_factory.mktemp("runs") / "clouds"
        run = experiment.open_run(folder, parts, config, source=str(photos))
        model = experiment.build(parts, config)
        rng = np.random.default_rng(1)
        for network in (model.encoder, model.decoder):
            shapes = [w.shape for w in network.get_weights()]
            weights = [rng.normal(0, 1 / np.prod(shape[:-1]) ** 0.5, shape) for shape in shapes]
            network.set_weights(weights)
        model.save(run.model_path)
        return run

    return make


@pytest.fixture(scope="session")
def shake() -> Callable[[Any], None]:
    """Draws a generator's weights, and the moments of its normalization, unlike a new one's."""

    def draw(network: Any) -> None:
        rng = np.random.default_rng(0)
        weights = [rng.normal(0, 0.4, weight.shape) for weight in network.weights]
        for variable, drawn in zip(network.weights, weights, strict=True):
            variable.assign(np.abs(drawn) + 0.1 if "variance" in variable.path else drawn)

    return draw


@pytest.fixture(scope="session")
def make_game(
    photos: Path, shake: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    """The like of a GAN; the moments of its normalization are drawn as well."""

    def make(**settings: Any) -> Run:
        small = {"latent_dim": 4, "filters": (4, 5), "precision": "float32", **settings}
        dataset = datasets.from_directory(photos)
        parts = pictures.load_parts(dataset, pictures.split(dataset))
        config = GanConfig(**small)
        folder = tmp_path_factory.mktemp("runs") / "game"
        run = games.open_run(folder, parts, config, source=str(photos))
        model = build_gan(parts.image_shape, config, num_classes=parts.num_classes)
        shake(model.generator)
        model.save(run.model_path)
        return run

    return make


@pytest.fixture(scope="session")
def run(make_run: Callable[..., Run]) -> Run:
    return make_run()


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files that stand for onnxruntime-web, where a page is only written and not opened."""
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (folder / name).write_bytes(name.encode())
    monkeypatch.setattr(assets, "fetch", lambda name, **_: folder)
    return folder
