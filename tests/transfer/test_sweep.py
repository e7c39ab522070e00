"""A sweep over cuts: what it may see, what it measures, and what it makes of that."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from safelight import datasets, known_pictures
from safelight.cli.runs import print_results
from safelight.comparison import mean_over_splits, standard_error
from safelight.runs import Run, list_runs
from safelight.transfer import backbones, sweep
from safelight.transfer.config import TrainConfig
from safelight.transfer.evaluation import evaluate
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.sweep import (
    CutResult,
    SweepResult,
    check_cuts,
    deal_inside,
    default_cuts,
    recommend,
    run_sweep,
    sweep_cuts,
)
from safelight.transfer.training import train

pytestmark = pytest.mark.filterwarnings("ignore:Even though the:UserWarning")

CONFIG = TrainConfig(
    image_size=16,
    head="logistic",
    head_layers=("block3_add/avg", "block4_pool/max"),
    epochs=2,
    views=1,
    test_views=1,
    batch_size=8,
    learning_rate=1e-3,
    precision="float32",
)
CUTS = (None, "block4")


@pytest.fixture(scope="module")
def dataset():
    return datasets.make_shapes(64, image_size=16, num_classes=2)


@pytest.fixture(scope="module")
def outer(dataset):
    return datasets.split(dataset, seed=3)


@pytest.fixture
def tiny(monkeypatch, build_network, eager):
    monkeypatch.setattr(backbones, "load_backbone", lambda name, **_: build_network())


def digests(*parts):
    return {digest for part in parts for digest in part.digests}


# --- what it may see


def test_every_split_is_dealt_from_what_may_be_learned_from(dataset, outer):
    dealt = deal_inside(dataset, outer, num_splits=4)

    learned = digests(outer.train, outer.validation)
    assert len({frozenset(digests(split.test)) for split in dealt.splits}) == 4
    for split in dealt.splits:
        parts = split.train, split.validation, split.test
        assert digests(*parts) == learned
        assert sum(map(len, parts)) == len(learned)
        assert min(map(len, parts)) > 0


def test_given_parts_keep_their_test_part_and_grouped_stays_grouped(dataset):
    given = ("train",) * 30 + ("validation",) * 14 + ("test",) * 20
    parts = dataclasses.replace(dataset, parts=given)
    dealt = deal_inside(parts, datasets.split(parts))
    for split in dealt.splits:
        assert digests(split.train, split.validation, split.test) == set(dataset.digests[:44])
    assert digests(dealt.splits[0].test) != digests(dealt.splits[1].test)

    groups = np.arange(len(dataset)) // 4
    together = dataclasses.replace(dataset, groups=groups)
    dealt = deal_inside(together, datasets.split(together, strategy="grouped"))
    for split in dealt.splits:
        assert not set(split.test.groups) & set(split.train.groups)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({"num_splits": 1}, "num_splits=1"), ({"validation_fraction": 0}, "decide when fine-tuning")],
)
def test_splits_that_say_nothing_are_refused(dataset, outer, options, expected):
    with pytest.raises(ValueError, match=expected):
        deal_inside(dataset, outer, **options)


# --- what it measures


@pytest.fixture(scope="module")
def swept(dataset, outer, build_network, tmp_path_factory, without_graphs):
    """A run of two splits, and the digests of the pictures that were looked at."""
    seen, read = [], datasets.ImageDataset.read

    def spy(self, index, **options):
        seen.append(self.digests[index])
        return read(self, index, **options)

    folder = tmp_path_factory.mktemp("swept")
    dealt, run = deal_inside(dataset, outer, num_splits=2), Run.create(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "load_backbone", lambda name, **_: build_network())
        patch.setattr(datasets.ImageDataset, "read", spy)
        with without_graphs():
            cache = FeatureCache(folder / "features")
            metrics = run_sweep(run, dealt, CONFIG, CUTS, cache=cache)
    return run, metrics, set(seen)


def test_a_run_has_numbers_and_a_picture_and_never_reads_the_test_part(swept, outer, capsys):
    run, metrics, seen = swept

    assert seen == digests(outer.train, outer.validation)
    assert run.config["kind"] == sweep.KIND
    assert run.config["cuts"] == list(CUTS)
    fractions = {"test_fraction": 0.25, "validation_fraction": 0.15}
    assert run.config["split"]["asked"] == {**fractions, "splits": 2}
    untouched = known_pictures.shorten(outer.test.digests)
    assert set(run.config["split"]["untouched"]) == set(untouched)
    assert run.metrics == json.loads(json.dumps(metrics))
    assert [path.stem for path in run.pictures] == ["sweep"]
    found = metrics["sweep"]
    assert [cut["unfreeze_from"] for cut in found["cuts"]] == list(CUTS)
    assert found["num_untouched"] == len(outer.test)
    assert found["cuts"][0]["minus_head_alone"] is None
    for cut in found["cuts"]:
        assert cut["accuracy"]["value"] == pytest.approx(np.mean(cut["scores"]["accuracy"]))
        assert cut["loss"]["value"] == pytest.approx(np.mean(cut["scores"]["loss"]))
        assert 0 < cut["training_seconds"] < metrics["seconds"]["total"]
    # What is above a lower cut holds what is above a higher one.
    numbers = [cut["num_trained"] for cut in found["cuts"]]
    assert numbers == sorted(set(numbers))

    (summary,) = list_runs(run.path.parent)
    assert (summary.kind, summary.finished, summary.problem) == (sweep.KIND, True, "")
    print_results(run)
    out = capsys.readouterr().out
    assert found["reading"] in out
    assert all(cut["name"] in out for cut in found["cuts"])
    assert f"the {len(outer.test)} of the test part were not used" in out


def test_intervals_rest_on_the_pictures_that_judge_for_each_one_learned_from(swept, outer):
    """What may be learned from is dealt to training and validation, or judges."""
    found = swept[1]["sweep"]
    judged, everything = found["num_judged"], len(outer.train) + len(outer.validation)
    assert found["num_train"] + found["num_validation"] == everything - judged
    ratio = judged / (everything - judged)
    assert found["test_to_train"] == pytest.approx(ratio)
    for cut in found["cuts"]:
        for score in ("accuracy", "loss"):
            expected = mean_over_splits(cut["scores"][score], test_to_train=ratio)
            assert cut[score] == pytest.approx(expected.to_dict())
    head, other = found["cuts"]
    gains = np.subtract(other["scores"]["accuracy"], head["scores"]["accuracy"])
    expected = mean_over_splits(gains, test_to_train=ratio).to_dict()
    assert other["minus_head_alone"] == pytest.approx(expected)
    assert other["minus_head_alone"]["value"] == pytest.approx(gains.mean())
    (best,) = (cut for cut in found["cuts"] if cut["unfreeze_from"] == found["best"])
    expected = standard_error(best["scores"]["accuracy"], test_to_train=ratio)
    assert found["margin"] == pytest.approx(expected)


@pytest.mark.parametrize("row", range(len(CUTS)))
def test_a_row_is_what_train_gives(swept, dataset, outer, tiny, cache, row):
    found, number = swept[1]["sweep"]["cuts"][row], 1
    config = dataclasses.replace(CONFIG, unfreeze_from=CUTS[row])
    split = datasets.split(
        dataset.subset(
            np.sort(np.concatenate([outer.indices[n] for n in ("train", "validation")]))
        ),
        validation_fraction=0.1,
        seed=outer.seed + number,
    )
    alone = train(split, config, cache=cache)
    judged = evaluate(alone.model, split.test, config=config, cache=cache)

    for name in ("accuracy", "loss"):
        expected = judged.metrics[name].value
        assert found["scores"][name][number] == pytest.approx(expected, rel=1e-5)
    assert set(found["seconds"]) == {*alone.seconds, "evaluate"}
    assert (found["cut"], found["head"]) == (alone.cut, alone.head)


def test_trained_weights_are_those_that_keras_would_train(build_network):
    model = build_network()
    everything = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    backbones.freeze(model, until="block3_add")
    above = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    for layer in model.layers:
        layer.trainable = True

    # block4: 3 x 3 x 6 inputs x 8 filters, a bias, and BatchNormalization's gamma and beta.
    assert sweep.count_trained(model, "block3_add") == above == 3 * 3 * 6 * 8 + 3 * 8
    assert sweep.count_trained(model, "block4_pool") == 0
    assert sweep.count_trained(model, None) == everything


@pytest.fixture
def stubbed(monkeypatch):
    """`train` and `evaluate` that cost nothing; an attribute says whether Ctrl-C was pressed."""

    class Stub:
        interrupted = False

        def __init__(self, *_, report, **options):
            report("extracting", 1, 1, "train images")
            report("fine-tuning", 1, 1, "")
            self.model, self.cut, self.head = None, None, "logistic"
            self.seconds = {"extract": 1.0, "head": 1.0}

    monkeypatch.setattr(sweep, "train", Stub)
    monkeypatch.setattr(sweep, "evaluate", lambda *_, **options: None)
    monkeypatch.setattr(sweep, "scores_of", lambda judged: {"accuracy": 0.5, "loss": 0.5})
    monkeypatch.setattr(sweep, "count_trained", lambda *_: 0)
    return Stub


def test_an_interrupted_training_ends_the_sweep(splits, stubbed):
    stubbed.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        sweep_cuts([splits, splits], CONFIG, CUTS)


def test_progress_counts_all_trainings(splits, stubbed):
    told = []
    cuts = (None, "block4", "block3")
    sweep_cuts([splits, splits], CONFIG, cuts, report=lambda *words: told.append(words))
    trainings = [words for words in told if words[0] == "trainings"]
    assert [done for _, done, _, _ in trainings] == list(range(7))
    assert {total for _, _, total, _ in trainings} == {6}
    assert [words for *_, words in trainings][::2] == ["head alone", "block4", "block3", ""]
    assert {words[0] for words in told} == {"trainings", "extracting"}


def test_what_a_sweep_says_of_known_accuracies(splits, stubbed, monkeypatch):
    """By hand: a quarter of the pictures judges, the other three quarters are learned from."""
    assert len(splits.test) == (len(splits.train) + len(splits.validation)) / 3
    accuracies = iter([0.50, 0.60, 0.70, 0.90])  # the head alone on both splits, then the block
    monkeypatch.setattr(
        sweep, "scores_of", lambda judged: {"accuracy": next(accuracies), "loss": 0.5}
    )
    found = sweep_cuts([splits, splits], CONFIG, CUTS).to_dict()

    error = np.sqrt(1 / 2 + 1 / 3)  # of a mean, for a standard deviation of 1
    reach, root = stats.t.ppf(0.975, 1) * error, np.sqrt(2)
    head, block = found["cuts"]
    for interval, value, spread in (
        (head["accuracy"], 0.55, 0.1 / root),
        (block["accuracy"], 0.80, 0.2 / root),
        (block["minus_head_alone"], 0.25, 0.1 / root),
    ):
        ends = {"low": value - reach * spread, "high": value + reach * spread}
        assert interval == pytest.approx({"value": value, **ends})
    assert found["test_to_train"] == pytest.approx(1 / 3)
    assert found["margin"] == pytest.approx(error * 0.2 / root)
    assert found["best"] == found["recommended"] == CUTS[1]


# --- what it makes of that


def cut_result(accuracies, seconds=1.0, *, name=None):
    stages = {"load": 100.0, "extract": 50.0, "evaluate": 25.0, "fine_tune": seconds, "head": 0.0}
    return CutResult(
        unfreeze_from=name,
        cut=None,
        head="logistic",
        num_trained=1,
        scores={"accuracy": list(accuracies), "loss": [0.5] * len(accuracies)},
        seconds={stage: [value] * len(accuracies) for stage, value in stages.items()},
    )


BEST = (0.80, 0.85, 0.90)  # mean 0.85, standard deviation 0.05; with a ratio of 2/3 also its error


@pytest.mark.parametrize(
    ("accuracies", "seconds", "expected"),
    [
        ([(0.81,) * 3, BEST], [1, 100], 0),
        ([(0.80,) * 3, BEST], [1, 100], 0),
        ([(0.79,) * 3, BEST], [1, 100], 1),
        ([(0.79,) * 3, (0.82,) * 3, (0.81,) * 3, BEST], [1, 20, 10, 100], 2),
        ([(0.84,) * 3, BEST], [100, 1], 1),
        ([(0.84,) * 3, BEST], [5, 5], 1),
        ([(0.8,) * 3, (0.8,) * 3], [2, 1], 1),
    ],
    ids="near edge far several best-is-cheap tie no-spread".split(),
)
def test_the_cheapest_within_one_standard_error_of_the_best(accuracies, seconds, expected):
    assert recommend(accuracies, seconds, test_to_train=2 / 3) == expected
    turned = recommend(accuracies[::-1], seconds[::-1], test_to_train=2 / 3)
    assert turned == len(seconds) - 1 - expected


def test_the_reading_says_which_and_why():
    def read(*cuts):
        result = SweepResult(cuts, 2 / 3)
        assert result.margin == pytest.approx(0.05)
        return result.reading

    dear = cut_result(BEST, 100, name="block5")
    near = read(cut_result((0.82, 0.82, 0.82)), dear)
    assert near.startswith("head alone: its mean accuracy of 82.0 % is within one standard error")
    assert "5.0 points" in near
    assert "85.0 % of block5" in near
    assert "in 1.0 s instead of 100.0 s" in near
    far = read(cut_result((0.7, 0.7, 0.7)), dear)
    assert far.startswith("block5: its mean accuracy of 85.0 % is the best, and nothing cheaper")
    cheap = read(cut_result(BEST), cut_result((0.84,) * 3, 100, name="block5"))
    assert (
        cheap
        == "head alone: its mean accuracy of 85.0 % is the best, and it trains fastest, in 1.0 s."
    )


def test_times_leave_extraction_out_and_the_first_split_warms_up():
    cut = cut_result((0.8, 0.8, 0.8))
    cut.seconds["fine_tune"][0], cut.seconds["extract"][1:] = 9.0, [0.0, 0.0]
    assert cut.training_seconds == 1.0
    assert cut.extraction_seconds == 50.0


def test_differences_to_the_head_alone_are_paired():
    head, other = cut_result((0.70, 0.80, 0.90)), cut_result((0.71, 0.82, 0.93), name="block5")
    found = SweepResult((head, other), 1 / 3).minus_head_alone(other)

    reach = stats.t.ppf(0.975, 2) * 0.01 * np.sqrt(1 / 3 + 1 / 3)
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((0.02 - reach, 0.02 + reach))


# --- which cuts


def test_defaults_of_vgg_are_its_last_convolution_and_its_last_block(vgg16):
    convolutions = [layer.name for layer in vgg16.layers if "conv" in layer.name]
    blocks = [name for name in convolutions if name.startswith("block5")]
    assert default_cuts("vgg16") == (None, convolutions[-1], blocks[0])
    assert default_cuts("vgg19") == (None, "block5_conv4", "block5_conv1")


@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_defaults_begin_with_the_head_alone_and_end_with_what_auto_means(name):
    cuts = default_cuts(name)
    assert cuts[0] is None
    assert cuts[-1] == backbones.find_backbone(name).unfreeze_from
    assert len(set(cuts)) == len(cuts) >= 2


def test_cuts_are_put_in_order(monkeypatch, vgg16):
    monkeypatch.setattr(backbones, "load_backbone", lambda name, **_: vgg16)
    config = TrainConfig(image_size=32)
    assert check_cuts(config, ["block4", None]) == (None, "block4")
    assert check_cuts(config, ["auto", "block5_conv1"]) == (None, "block5_conv1")
    assert check_cuts(config, default_cuts("vgg16")) == default_cuts("vgg16")
    for cuts, expected in [
        ([], "nothing but the head alone.*'block5_conv1'"),
        ([None], "nothing but the head alone"),
        (["block5", "block5_conv1"], "'block5' and 'block5_conv1' are the same cut"),
        (["blok5_conv1"], "near names are .*block5_conv1"),
    ]:
        with pytest.raises(ValueError, match=expected):
            check_cuts(config, cuts)
    for wrong in ({"pretrained": False}, {"epochs": 0}):
        with pytest.raises(ValueError, match="all cuts the same training"):
            check_cuts(dataclasses.replace(config, **wrong), ["block5"])


def test_the_head_alone_has_to_be_first(splits):
    with pytest.raises(ValueError, match="the head alone, first"):
        sweep_cuts([splits, splits], CONFIG, ["block4"])
