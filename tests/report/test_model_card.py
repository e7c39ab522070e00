"""The model card: read by machines, true to the run, and nobody's own words are lost."""

import pytest

from safelight.report import write_model_card
from safelight.report.model_card import render_model_card
from safelight.report.reading import read_run

yaml = pytest.importorskip("yaml")


def front_matter(text):
    begin, matter, _ = text.split("---\n", 2)
    assert begin == ""
    return yaml.safe_load(matter)


def test_the_metadata_are_those_of_the_run(make_classifier):
    run = make_classifier()
    found = front_matter(render_model_card(read_run(run.path)))
    assert (found["library_name"], found["pipeline_tag"]) == ("keras", "image-classification")
    (result,) = found["model-index"][0]["results"]
    metrics = {each["name"]: each["value"] for each in result["metrics"]}
    assert metrics["accuracy"] == run.metrics["accuracy"]["value"]
    assert metrics["roc auc"] == run.metrics["roc_auc"]["value"]
    assert result["dataset"]["name"] == "pets"


def test_names_stay_names_in_the_metadata(make_classifier, hostile):
    run = make_classifier("a: [b", names=hostile, dataset="no: # \\ \"quotes\" 'or' - lists")
    found = front_matter(render_model_card(read_run(run.path)))
    assert found["model_name"] == "a: [b"
    dataset = found["model-index"][0]["results"][0]["dataset"]
    assert dataset["name"] == "no: # \\ \"quotes\" 'or' - lists"


def test_the_sections_are_those_that_hubs_ask_for(make_classifier, make_vae):
    for run in (make_classifier(), make_vae()):
        text = render_model_card(read_run(run.path))
        headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
        assert headings[:4] == ["Intended use", "Training data", "Evaluation", "Limits"]


def test_a_hostile_name_is_no_html(make_classifier, hostile):
    run = make_classifier(names=hostile, dataset=hostile[0])
    body = render_model_card(read_run(run.path)).split("---\n", 2)[2].split("```sh")[0]
    assert not [at for at, c in enumerate(body) if c == "<" and body[at - 1] != "\\"]


def test_an_untouched_card_is_renewed_and_a_changed_one_is_kept(make_classifier):
    run = make_classifier()
    path, written = write_model_card(run.path)
    assert (path, written) == (run.path / "README.md", True)
    run.write_metrics({**run.metrics, "num_test": 61})
    assert write_model_card(run.path) == (path, True)
    assert "61 test pictures" in path.read_text()
    mine = path.read_text().replace("## Limits", "## Limits\n\n- Mine.")
    path.write_text(mine)
    assert write_model_card(run.path) == (path, False)
    assert path.read_text() == mine


@pytest.mark.parametrize("content", ["# Mine\n", "", "\udcff"])
def test_a_users_own_file_is_kept(make_classifier, content):
    run = make_classifier()
    path = run.path / "README.md"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert write_model_card(run.path) == (path, False)
    assert path.read_bytes() == content.encode("utf-8", "surrogateescape")


def test_an_unfinished_run_has_a_card_without_numbers(make_classifier):
    run = make_classifier()
    (run.path / "metrics.json").unlink()
    text = render_model_card(read_run(run.path))
    assert "there are no numbers" in text
    assert "model-index" not in front_matter(text)


@pytest.mark.parametrize("kind", ["classifier", "vae", "gan"])
def test_a_number_without_an_interval_has_no_brackets(make_classifier, make_vae, make_gan, kind):
    run = {"classifier": make_classifier, "vae": make_vae, "gan": make_gan}[kind]()
    lone = {"value": 0.5, "low": None, "high": None}
    metrics = run.metrics
    metrics |= {"accuracy": lone, "log_likelihood": lone, "score": {"frechet": lone, "num_real": 9}}
    run.write_metrics(metrics)
    text = render_model_card(read_run(run.path))
    said = {"classifier": "50.0 %", "vae": "0.5 nats", "gan": "0.500"}[kind]
    assert f"| {said} |" in text
    assert "nan" not in text
    assert "[]" not in text
