"""What a run says of its data: enough to go on with it, and to ask for the same again."""

import dataclasses

import pytest

from safelight import datasets
from safelight.generative import pictures
from safelight.generative.records import describe_run, open_described


@dataclasses.dataclass(frozen=True)
class Config:
    epochs: int = 3


@pytest.fixture(scope="module")
def make_parts():
    dataset = datasets.make_shapes(60, image_size=8)

    def make(**options):
        return pictures.load_parts(dataset, pictures.split(dataset, **options))

    return make


@pytest.fixture
def begin(tmp_path):
    """A run that was begun, and may be continued."""

    def make(parts):
        run = open_described(tmp_path / "run", describe_run("vae", parts, Config()))
        (run.path / "checkpoint.npz").touch()
        return run

    return make


def go_on(run, parts):
    return open_described(run.path, describe_run("vae", parts, Config()))


def test_the_fraction_that_was_asked_for_is_kept(begin, make_parts):
    parts = make_parts(test_fraction=0.34)
    asked = begin(parts).config["split"]["asked"]
    assert asked["test_fraction"] == 0.34
    assert len(parts.splits.test) / 60 != 0.34  # whole pictures of each class


def test_a_run_that_an_older_version_began_goes_on(begin, make_parts):
    parts = make_parts()
    run = begin(parts)
    older = run.config
    del older["split"]["asked"]
    run.write_config(older)
    assert go_on(run, parts).config == run.config


def test_fractions_that_deal_the_same_parts_go_on_and_others_do_not(begin, make_parts):
    run, nearly = begin(make_parts()), make_parts(test_fraction=0.2501)
    assert list(nearly.splits.indices["test"]) == list(make_parts().splits.indices["test"])
    assert go_on(run, nearly).config["split"]["asked"]["test_fraction"] == 0.25
    with pytest.raises(ValueError, match="other data or another split"):
        go_on(run, make_parts(test_fraction=0.4))
