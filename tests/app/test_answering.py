"""A run's classifier answers in the page as it does anywhere else, for many threads at once."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from safelight.app.answering import NUM_NEAREST, Answerer
from safelight.runs import Run
from safelight.transfer import experiment, unfamiliar
from safelight.transfer.explanations import Explainer
from safelight.transfer.prediction import answer
from safelight.transfer.references import read_references

pytestmark = pytest.mark.filterwarnings("ignore:Even though the:UserWarning")


@pytest.fixture(scope="module")
def answerer(run, dataset):
    return Answerer(run, dataset=dataset)


@pytest.fixture(scope="module")
def files(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("files")
    paths = [folder / f"{i}.png" for i in range(10)]
    for i, path in enumerate(paths):
        Image.fromarray(dataset.read(i)).save(path)
    return paths


def test_an_answer_is_that_of_the_library(run, answerer, files, dataset):
    model = experiment.load_classifier(run)
    found = answer(model, [dataset.read(i) for i in range(3)])
    usual = read_references(run.path)
    assert usual is not None
    explained = Explainer(model, references=usual).explain([dataset.read(i) for i in range(3)])
    known = unfamiliar.read_familiarity(run)
    for i in range(3):
        given = answerer.answer(files[i])
        assert (given.file, given.error) == (f"{i}.png", "")
        np.testing.assert_allclose(given.probabilities, found.probabilities[i], atol=1e-5)
        assert given.familiarity == pytest.approx(known.p_values(found.features[[i]])[0], abs=0.05)
        np.testing.assert_array_equal(given.pixels, dataset.read(i))
        np.testing.assert_allclose(given.map, explained.maps[i], atol=1e-3)


def test_a_training_picture_is_nearest_to_itself(answerer, dataset):
    digests = answerer.run.config["split"]["digests"]["train"]
    places = [d[: len(digests[0])] for d in dataset.digests]
    index = places.index(digests[5])
    nearest = answerer._answer("x.png", dataset.read(index)).nearest
    assert len(nearest) == NUM_NEAREST
    assert nearest[0].picture.file == dataset.files[index]
    assert nearest[0].picture.label == dataset.class_names[dataset.labels[index]]
    assert nearest[0].distance < 0.01
    assert sorted(each.distance for each in nearest) == [each.distance for each in nearest]


def test_a_file_that_is_no_picture_is_an_answer_too(answerer, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    given = answerer.answer(tmp_path / "notes.txt")
    assert given.file == "notes.txt"
    assert given.error.startswith("not a picture")
    assert given.pixels is None


def test_ten_threads_get_their_own_answers(answerer, files):
    alone = [answerer.answer(file).probabilities for file in files]
    assert len({probabilities.tobytes() for probabilities in alone}) == 10
    with ThreadPoolExecutor(10) as pool:
        together = list(pool.map(answerer.answer, files * 3))
    for number, given in enumerate(together):
        assert given.file == files[number % 10].name
        np.testing.assert_allclose(given.probabilities, alone[number % 10], atol=1e-6)


def test_what_is_unfamiliar_is_refused_at_the_rate_that_was_asked_for(run, answerer, files):
    assert answerer.refuse == 0.05
    never, often = Answerer(run, refuse=0), Answerer(run, refuse=0.9)
    given = [often.answer(file) for file in files]
    assert any(each.refused for each in given)
    for each in given:
        assert each.refused == (each.familiarity <= 0.9)
    assert not any(never.answer(file).refused for file in files)
    for rate in (-0.1, 1.0):
        with pytest.raises(ValueError, match="rate of false alarms"):
            Answerer(run, refuse=rate)
    with pytest.raises(ValueError, match="refuses nothing"):
        Answerer(run, refuse=1e-6)


def test_a_run_that_does_not_know_what_is_familiar_refuses_nothing(run, files, tmp_path):
    shutil.copytree(run.path, tmp_path / "run")
    (tmp_path / "run" / "familiarity.npz").unlink()
    older = Answerer(Run.open(tmp_path / "run"))
    given = older.answer(files[0])
    assert (older.refuse, given.familiarity, given.refused, given.nearest) == (0, None, False, ())
    with pytest.raises(ValueError, match="nothing is known to be familiar"):
        Answerer(older.run, refuse=0.05)
    (tmp_path / "run" / "familiarity.npz").write_bytes(b"broken")
    with pytest.raises(ValueError, match="damaged"):
        Answerer(older.run)


def test_another_kind_of_run_is_refused(tmp_path):
    other = Run.create(tmp_path / "vae")
    other.write_config({"kind": "vae"})
    with pytest.raises(ValueError, match="expected 'transfer'"):
        Answerer(other)
