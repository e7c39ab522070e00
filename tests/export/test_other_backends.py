"""A run folder opens under another backend and answers alike; in processes of their own."""

import importlib.util
import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest

from safelight import vae
from safelight.runs import Run
from safelight.transfer import experiment, prediction

OWN = keras.backend.backend()
PACKAGES = {"tensorflow": "tensorflow", "jax": "jax", "torch": "torch"}
OTHERS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
        ),
    )
    for name, package in PACKAGES.items()
    if name != OWN
]

ANSWER = """
    import json, sys
    from pathlib import Path
    import numpy as np
    import safelight.vae.experiment
    from safelight import model_files
    from safelight.runs import Run
    from safelight.transfer import experiment, prediction

    run, autoencoder, data, output = json.loads(sys.argv[1])
    with np.load(data) as arrays:
        pictures, x, z = (arrays[name] for name in ("pictures", "x", "z"))
    classifier = experiment.load_classifier(Run.open(run))
    model = model_files.load_model(Path(autoencoder))
    mean, variance = model.encode(x)
    np.savez(
        output,
        probabilities=prediction.predict(classifier, pictures),
        mean=mean,
        variance=variance,
        decoded=np.asarray(model.decode(z)),
    )
"""


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """One of convolutions, with a learned prior; its weights are drawn."""
    config = vae.TrainConfig(
        latent_dim=3, architecture="conv", hidden_units=(4, 6), likelihood="bernoulli", prior="flow"
    )
    model = vae.build_vae((12, 8, 1), config)
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(0, 0.3, w.shape) for w in model.get_weights()])
    path = tmp_path_factory.mktemp("vae") / "model.keras"
    model.save(path)
    return model, path


@pytest.mark.slow
@pytest.mark.parametrize("backend", OTHERS)
def test_a_run_answers_alike_on_another_backend(tmp_path, run, dataset, autoencoder, backend):
    pictures = np.stack([dataset.read(i) for i in range(12)])
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (5, 12, 8, 1), dtype=np.uint8)
    z = rng.standard_normal((5, 3), "float32")
    data, output = tmp_path / "data.npz", tmp_path / "found.npz"
    np.savez(data, pictures=pictures, x=x, z=z)
    model, path = autoencoder
    arguments = json.dumps([str(run.path), str(path), str(data), str(output)])
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ANSWER), arguments],
        env={**os.environ, "KERAS_BACKEND": backend},
        check=True,
        timeout=300,
    )
    with np.load(output) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    classifier = experiment.load_classifier(Run.open(run.path))
    mean, variance = model.encode(x)
    wanted = {
        "probabilities": prediction.predict(classifier, pictures),
        "mean": mean,
        "variance": variance,
        "decoded": np.asarray(keras.ops.convert_to_numpy(model.decode(z))),
    }
    for name, array in wanted.items():
        assert np.std(array) > 1e-3, name  # one answer for all would hide a mistake
        np.testing.assert_allclose(found[name], array, atol=1e-4, err_msg=name)
