"""Distances, precision and recall against torch-fidelity, on the same features.

Skipped where it is missing; where torch is there, `pip install --no-deps torch-fidelity==0.4.0`
brings it. It imports torchvision, which these functions do without: a stand-in will do.
"""

import importlib.util
import sys
from unittest import mock

import numpy as np
import pytest

from safelight import sample_quality

if importlib.util.find_spec("torch_fidelity") is None:
    pytest.skip("torch-fidelity is not installed", allow_module_level=True)
torch = pytest.importorskip("torch")
PARTS = ("", ".transforms", ".transforms.functional", ".datasets", ".models")
missing = importlib.util.find_spec("torchvision") is None
stand_ins = {f"torchvision{part}": mock.MagicMock() for part in PARTS} if missing else {}
with mock.patch.dict(sys.modules, stand_ins):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric
    from torch_fidelity.metric_prc import prc_features_to_metric

NUM = 2000


@pytest.fixture(scope="module")
def features():
    """Correlated and cut at 0, as those of a network are; the second side is shifted."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(64, 64)) / 8
    real, fake = (np.maximum(rng.normal(size=(NUM, 64)) @ mix + 0.1 * i, 0) for i in range(2))
    return real, fake


def test_frechet_distance_is_that_of_torch_fidelity(features):
    statistics = [fid_features_to_statistics(torch.from_numpy(each)) for each in features]
    (wanted,) = fid_statistics_to_metric(*statistics, verbose=False).values()
    assert sample_quality.frechet_distance(*features) == pytest.approx(wanted, rel=1e-9)


def test_kernel_distance_is_that_of_torch_fidelity(features):
    """Of one subset of all, which is what the estimate without subsets is."""
    wanted = kid_features_to_metric(
        *map(torch.from_numpy, features), kid_subsets=1, kid_subset_size=NUM, verbose=False
    )
    found = sample_quality.kernel_distance(*features)
    assert found.value == pytest.approx(wanted["kernel_inception_distance_mean"], rel=1e-9)


def test_precision_and_recall_are_those_of_torch_fidelity(features):
    real, fake = features
    wanted = prc_features_to_metric(
        torch.from_numpy(fake),
        torch.from_numpy(real),
        prc_neighborhood=sample_quality.NUM_NEIGHBOURS,
        verbose=False,
    )
    found = sample_quality.compare_neighbourhoods(real, fake)
    assert found.precision == pytest.approx(wanted["precision"])
    assert found.recall == pytest.approx(wanted["recall"])
