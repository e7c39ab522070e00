"""Two runs side by side: the right pairs, and nothing else is paired."""

import json

import numpy as np
import pytest

from safelight.comparison import paired_over_splits
from safelight.metrics import paired_difference
from safelight.runs import Run
from safelight.transfer.run_comparison import compare_runs

NAMES = ["cat", "dog"]


def make_run(
    path,
    *,
    wrong=(),
    number=40,
    splits=None,
    kind="transfer",
    fingerprint="f",
    first=0,
    groups=None,
):
    """A run on `number` pictures, alternately cat and dog, some of them answered wrongly."""
    run = Run.create(path)
    dataset = {"name": "pets", "fingerprint": fingerprint, "class_names": NAMES}
    run.write_config({"kind": kind, "dataset": dataset})
    labels = np.arange(number) % 2
    sure = np.where(np.isin(np.arange(number), list(wrong)), 1 - labels, labels)
    chance = np.where(sure == 1, 0.8, 0.2)
    order = np.random.default_rng(len(wrong)).permutation(number)
    run.write_predictions(
        {
            "file": [f"{first + i}.png" for i in order],
            "label": [NAMES[labels[i]] for i in order],
            "p(cat)": [1 - chance[i] for i in order],
            "p(dog)": [chance[i] for i in order],
            **({} if groups is None else {"group": [groups[i] for i in order]}),
        }
    )
    run.write_metrics({"accuracy": {"value": 1}} | ({"splits": splits} if splits else {}))
    return run


def splits(accuracies, seeds=(0, 1, 2)):
    return {
        "seeds": list(seeds),
        "strategy": "stratified",
        "test_to_train": 1 / 3,
        "scores": {"accuracy": accuracies, "loss": [1 - a for a in accuracies]},
    }


def test_one_split_is_compared_picture_by_picture(tmp_path):
    """Whatever the order of the tables."""
    a = make_run(tmp_path / "a", wrong=[3, 4])
    b = make_run(tmp_path / "b", wrong=[3, 10, 11, 12, 13, 14])
    found = compare_runs(a, b)

    labels = np.arange(40) % 2
    rows = []
    for wrong in ([3, 4], [3, 10, 11, 12, 13, 14]):
        said = np.where(np.isin(np.arange(40), wrong), 1 - labels, labels)
        rows.append(np.stack([1 - said, said], 1).astype(float))
    expected = paired_difference(labels, rows[0], probabilities_b=rows[1])
    assert found["difference"]["accuracy"]["value"] == pytest.approx(4 / 40)
    assert found["difference"]["accuracy"]["low"] == pytest.approx(expected.low, abs=0.03)
    assert "40 test pictures" in found["on"]


def test_several_splits_are_compared_split_by_split(tmp_path):
    first, second = [0.9, 0.85, 0.88], [0.88, 0.84, 0.85]
    a = make_run(tmp_path / "a", splits=splits(first))
    b = make_run(tmp_path / "b", splits=splits(second))
    expected = paired_over_splits(first, second, test_to_train=1 / 3)

    assert compare_runs(a, b)["difference"]["accuracy"] == expected.to_dict()
    assert compare_runs(a, b)["difference"]["loss"]["value"] == pytest.approx(-0.02)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"fingerprint": "g"}, "the same data"),
        ({"kind": "vae"}, "transfer train"),
        ({"first": 1000}, "different pictures"),
        ({"number": 30}, "training pictures of the other"),
    ],
)
def test_what_cannot_be_paired_is_refused(tmp_path, other, message):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b", **other)
    with pytest.raises(ValueError, match=message):
        compare_runs(a, b)


def test_other_seeds_are_other_splits(tmp_path):
    a = make_run(tmp_path / "a", splits=splits([0.9, 0.8, 0.7]))
    b = make_run(tmp_path / "b", splits=splits([0.9, 0.8, 0.7], seeds=(1, 2, 3)))
    with pytest.raises(ValueError, match="different splits"):
        compare_runs(a, b)


def test_other_fractions_may_be_other_splits_of_the_same_seeds(tmp_path):
    dealt = splits([0.9, 0.8, 0.7])
    a = make_run(tmp_path / "a", splits={**dealt, "test_parts": ["1", "2", "3"]})
    b = make_run(tmp_path / "b", splits={**dealt, "test_parts": ["1", "2", "4"]})
    with pytest.raises(ValueError, match=r"different splits.*fractions"):
        compare_runs(a, b)
    older = make_run(tmp_path / "older", splits=dealt)
    assert compare_runs(a, older)["difference"]["accuracy"]["value"] == 0
    assert compare_runs(a, a)["difference"]["accuracy"]["value"] == 0


def test_pictures_of_one_group_are_resampled_together(tmp_path):
    wrong = [i for i in range(40) if i // 4 % 3 == 0]
    found = {}
    for name, groups in (("grouped", np.arange(40) // 4), ("alone", None)):
        a = make_run(tmp_path / name / "a", groups=groups)
        b = make_run(tmp_path / name / "b", wrong=wrong)
        found[name] = compare_runs(a, b)
    wide, narrow = (each["difference"]["accuracy"] for each in found.values())
    assert wide["value"] == narrow["value"] == pytest.approx(0.4)
    assert wide["high"] - wide["low"] > 1.3 * (narrow["high"] - narrow["low"])
    assert "groups" in found["grouped"]["method"]


def folds(accuracies, seed=0, strategy="stratified"):
    number = len(accuracies)
    return {
        **splits(accuracies, seeds=[seed] * number),
        "num_folds": number,
        "strategy": strategy,
        "test_to_train": 1 / (number - 1),
    }


def test_folds_are_compared_fold_by_fold(tmp_path):
    first, second = [0.9, 0.85, 0.88, 0.8], [0.88, 0.84, 0.85, 0.82]
    a = make_run(tmp_path / "a", splits=folds(first))
    b = make_run(tmp_path / "b", splits=folds(second))
    found = compare_runs(a, b)
    expected = paired_over_splits(first, second, test_to_train=1 / 3)
    assert found["difference"]["accuracy"] == expected.to_dict()
    assert found["on"] == "4 stratified folds"
    assert found["method"].startswith("4-fold cross-validation;")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            folds([0.9, 0.8, 0.7], seed=1),
            r"different folds \(seed 0 and 1, .*--split and --groups",
        ),
        (folds([0.9, 0.8, 0.7], strategy="grouped"), "stratified and grouped"),
        (folds([0.9, 0.8]), "on 3 folds, .* on 2 folds: expected both with the same --folds"),
        (splits([0.9, 0.8, 0.7]), "on 3 folds, .* on 3 random splits"),
        (splits([0.9, 0.8, 0.7], seeds=(0, 0, 0)), "on 3 folds, .* on 3 random splits"),
        (None, "on 3 folds, .* on one split"),
    ],
)
def test_other_folds_and_splits_are_refused(tmp_path, other, message):
    a = make_run(tmp_path / "a", splits=folds([0.9, 0.8, 0.7]))
    b = make_run(tmp_path / "b", splits=other)
    with pytest.raises(ValueError, match=message):
        compare_runs(a, b)


@pytest.mark.parametrize("cell", ["inf", "nan", "-0.2", "7.5", "1e308", "", "much"])
def test_what_is_no_probability_is_not_compared(tmp_path, cell):
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    lines = (b.path / "predictions.csv").read_text().splitlines()
    lines[5] = ",".join([*lines[5].split(",")[:-1], cell])
    (b.path / "predictions.csv").write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=r"b: predictions.csv holds numbers that are no probabilities"
    ):
        compare_runs(a, b)


def test_several_splits_and_one_share_their_first(tmp_path):
    a = make_run(tmp_path / "a", splits=splits([0.9, 0.8, 0.7]))
    assert "test pictures of one split" in compare_runs(a, make_run(tmp_path / "b"))["on"]


def test_the_command_says_the_difference_and_whether_chance_explains_it(tmp_path, call):
    first, second = [0.9, 0.85, 0.88], [0.8, 0.75, 0.78]
    a = make_run(tmp_path / "a", splits=splits(first))
    b = make_run(tmp_path / "b", splits=splits(second))

    code, out, _ = call("transfer", "compare", a.path, b.path)
    assert code == 0
    assert "accuracy          +0.1000 [+0.1000, +0.1000]  (not by chance)" in out
    assert "3 stratified splits" in out
    code, out, _ = call("transfer", "compare", a.path, b.path, "--json")
    assert json.loads(out)["difference"]["accuracy"]["value"] == pytest.approx(0.1)
    code, _, err = call("transfer", "compare", a.path, tmp_path)
    assert code == 2
    assert "Traceback" not in err
    (a.path / "config.json").write_text('{"safelight_run": 1, "kind": "transfer"}')
    code, _, err = call("transfer", "compare", a.path, b.path)
    assert code == 2
    assert "damaged ('dataset')" in err
