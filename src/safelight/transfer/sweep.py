"""Which layers should be unfrozen? The same training at several cuts: accuracy against time.

    dealt = deal_inside(dataset, datasets.split(dataset, seed=0), num_splits=3)
    swept = sweep_cuts(dealt.splits, config, default_cuts("vgg16"))
    swept.reading

All splits are dealt from what may be learned from, so choosing a cut does not use up the test part:
a `train` with the same seed and fractions still has one that nobody has looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import ArrayLike

from safelight import datasets, known_pictures, plots
from safelight.comparison import (
    SPLITS_METHOD,
    join_splits,
    mean_over_splits,
    paired_over_splits,
    standard_error,
)
from safelight.datasets import ImageDataset, Splits
from safelight.locks import alone
from safelight.metrics import Interval
from safelight.runs import Run
from safelight.transfer import backbones
from safelight.transfer.config import TrainConfig
from safelight.transfer.evaluation import evaluate
from safelight.transfer.feature_cache import FeatureCache
from safelight.transfer.fine_tuning import Report, silent
from safelight.transfer.plan import Plan
from safelight.transfer.repetition import scores_of
from safelight.transfer.training import EXTRACTING, train

KIND = "transfer-sweep"
NUM_SPLITS = 3
_HEAD_ALONE = "head alone"
_TRAINING = ("head", "fine_tune", "calibrate")  # the stages that the cut makes dear or cheap
_TRAININGS = "trainings"  # the name of it all in what is reported
# Of the last block; a row of the table of networks names its first.
_LAST_CONVOLUTIONS = {"vgg16": "block5_conv3", "vgg19": "block5_conv4"}


@dataclasses.dataclass(frozen=True, eq=False)
class InnerSplits:
    """Splits of what may be learned from.

    Attributes:
        dataset: The whole data set.
        outer: Its parts; the test part is in none of `splits`.
        splits: Random splits of the other two parts, each with a part of its own that judges.
    """

    dataset: ImageDataset
    outer: Splits
    splits: tuple[Splits, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class CutResult:
    """What training from one cut gave.

    Attributes:
        unfreeze_from: The setting; `None` for the head alone.
        cut: The last frozen layer; `None` where nothing was frozen.
        head: The kind of head.
        num_trained: Single numbers that training fits: the head's, and all above the cut.
        scores: What `repetition.scores_of` gives, a list per score with a value per split.
        seconds: Likewise for each stage of training, and for `"evaluate"`.
    """

    unfreeze_from: str | None
    cut: str | None
    head: str
    num_trained: int
    scores: dict[str, list[float]]
    seconds: dict[str, list[float]]

    @property
    def name(self) -> str:
        """The cut as it is called in tables and pictures."""
        return self.unfreeze_from or _HEAD_ALONE

    @property
    def training_seconds(self) -> float:
        """Of one split, without loading and extraction: the median, as the first one warms up."""
        stages = [self.seconds[stage] for stage in _TRAINING if stage in self.seconds]
        return float(np.median(np.sum(stages, axis=0)))

    @property
    def extraction_seconds(self) -> float:
        """Of all splits together, which share what they extract; near 0 if it was there before."""
        return float(np.sum(self.seconds["extract"]))


@dataclasses.dataclass(frozen=True, eq=False)
class SweepResult:
    """All cuts on the same splits, the head alone first.

    Attributes:
        cuts: One per cut, in the order in which they were tried.
        test_to_train: Pictures that judge for each one that was learned from.
    """

    cuts: tuple[CutResult, ...]
    test_to_train: float

    def mean(self, cut: CutResult, score: str = "accuracy") -> Interval:
        """The mean over the splits with its corrected interval."""
        return mean_over_splits(cut.scores[score], test_to_train=self.test_to_train)

    def minus_head_alone(self, cut: CutResult, score: str = "accuracy") -> Interval:
        """The mean difference to the head alone, split by split."""
        reference = self.cuts[0].scores[score]
        return paired_over_splits(cut.scores[score], reference, test_to_train=self.test_to_train)

    @property
    def best(self) -> CutResult:
        """The cut with the highest mean accuracy; of equal ones the first."""
        return max(self.cuts, key=lambda cut: float(np.mean(cut.scores["accuracy"])))

    @property
    def margin(self) -> float:
        """One standard error of the best mean accuracy, a fraction."""
        return standard_error(self.best.scores["accuracy"], test_to_train=self.test_to_train)

    @property
    def recommended(self) -> CutResult:
        """The cheapest cut that is not clearly worse than the best; see `recommend`."""
        return self.cuts[
            recommend(
                [cut.scores["accuracy"] for cut in self.cuts],
                [cut.training_seconds for cut in self.cuts],
                test_to_train=self.test_to_train,
            )
        ]

    @property
    def reading(self) -> str:
        """The recommendation and its reason, one sentence."""
        best, chosen, points = self.best, self.recommended, f"{100 * self.margin:.1f} points"
        top, seconds = f"{self._percent(best)} %", f"{chosen.training_seconds:.1f} s"
        if chosen is not best:
            return (
                f"{chosen.name}: its mean accuracy of {self._percent(chosen)} % is within one "
                f"standard error ({points}) of the best, {top} of {best.name}, and it trains in "
                f"{seconds} instead of {best.training_seconds:.1f} s."
            )
        if best.training_seconds <= min(cut.training_seconds for cut in self.cuts):
            return (
                f"{best.name}: its mean accuracy of {top} is the best, and it trains fastest, in "
                f"{seconds}."
            )
        return (
            f"{best.name}: its mean accuracy of {top} is the best, and nothing cheaper is within "
            f"one standard error ({points}) of it; it trains in {seconds}."
        )

    @staticmethod
    def _percent(cut: CutResult) -> str:
        return f"{100 * np.mean(cut.scores['accuracy']):.1f}"

    def to_dict(self) -> dict[str, Any]:
        """As it stands in `metrics.json`."""
        return {
            "cuts": [self._row(cut) for cut in self.cuts],
            "test_to_train": self.test_to_train,
            "method": SPLITS_METHOD,
            "margin": self.margin,
            "best": self.best.unfreeze_from,
            "recommended": self.recommended.unfreeze_from,
            "reading": self.reading,
        }

    def _row(self, cut: CutResult) -> dict[str, Any]:
        first = cut is self.cuts[0]
        return {
            **{field.name: getattr(cut, field.name) for field in dataclasses.fields(cut)},
            "name": cut.name,
            "accuracy": self.mean(cut).to_dict(),
            "loss": self.mean(cut, "loss").to_dict(),
            "minus_head_alone": None if first else self.minus_head_alone(cut).to_dict(),
            "training_seconds": cut.training_seconds,
            "extraction_seconds": cut.extraction_seconds,
        }


def recommend(accuracies: ArrayLike, seconds: ArrayLike, *, test_to_train: float) -> int:
    """The cheapest whose mean accuracy is within one standard error of the best mean.

    A few splits cannot tell more finely, so what costs more has to show more: the rule of Breiman
    et al. 1984, section 3.4.3, with the standard error of Nadeau and Bengio.

    Args:
        accuracies: `(c, num_splits)`, two splits or more.
        seconds: `(c,)`, what each costs.
        test_to_train: As in `comparison.mean_over_splits`.

    Returns:
        Its row; of equally cheap ones the most accurate.
    """
    accuracies, seconds = np.asarray(accuracies, float), np.asarray(seconds, float)
    means = accuracies.mean(1)
    margin = standard_error(accuracies[means.argmax()], test_to_train=test_to_train)
    # Means of the same accuracies in another order differ by rounding.
    within = np.flatnonzero(means >= means.max() - margin - 1e-12)
    return int(min(within, key=lambda row: (seconds[row], -means[row])))


def default_cuts(backbone: str) -> tuple[str | None, ...]:
    """Cuts worth a try: the head alone, the last convolution (VGG), the block that usually pays.

    Raises:
        ValueError: No such backbone.
    """
    row = backbones.find_backbone(backbone)
    last = _LAST_CONVOLUTIONS.get(backbone)
    return (None, *([last] if last else []), row.unfreeze_from)


def check_cuts(config: TrainConfig, cuts: Sequence[str | None]) -> tuple[str | None, ...]:
    """The cuts as `sweep_cuts` takes them: the head alone first, `"auto"` replaced by its layer.

    Raises:
        ValueError: A layer that the network does not have, two names of one cut, nothing to
            compare, or settings under which cuts make no difference.
    """
    if not config.pretrained or not config.epochs:
        what = "epochs=0" if config.pretrained else "pretrained=False"
        raise ValueError(f"{what} makes all cuts the same training: expected another setting.")
    row = backbones.find_backbone(config.backbone)
    named = [row.unfreeze_from if cut == "auto" else cut for cut in cuts]
    named = [None, *(cut for cut in dict.fromkeys(named) if cut is not None)]
    if len(named) < 2:
        raise ValueError(
            "nothing but the head alone to try: expected a layer as well, such as "
            f"{row.unfreeze_from!r}."
        )
    network = backbones.load_backbone(config.backbone, image_size=config.image_size, weights=None)
    seen: dict[str | None, str | None] = {}
    for cut in named[1:]:
        plan = Plan.make(network, dataclasses.replace(config, unfreeze_from=cut))
        if plan.cut in seen:
            raise ValueError(
                f"{seen[plan.cut]!r} and {cut!r} are the same cut, above {plan.cut!r}: expected "
                "one of them."
            )
        seen[plan.cut] = cut
    return tuple(named)


def deal_inside(
    dataset: ImageDataset,
    outer: Splits,
    *,
    num_splits: int = NUM_SPLITS,
    test_fraction: float = 0.25,
    validation_fraction: float = 0.1,
) -> InnerSplits:
    """Deals what may be learned from anew, several times; the test part stays out of it.

    Args:
        dataset: What `outer` is a split of.
        outer: As from `datasets.split`.
        num_splits: Two or more, as one shows no spread.
        test_fraction: Share of what may be learned from that judges a training.
        validation_fraction: Share of it that decides when a training stops.

    Raises:
        ValueError: Fewer than two splits, no validation part, or too few pictures.
    """
    if num_splits < 2:
        raise ValueError(f"num_splits={num_splits}: expected 2 or more, one shows no spread.")
    if not validation_fraction > 0:
        raise ValueError(
            f"validation_fraction={validation_fraction}: expected more than 0, since these "
            "pictures decide when fine-tuning stops."
        )
    rows = np.concatenate([outer.indices["train"], outer.indices["validation"]])
    learned = dataclasses.replace(dataset.subset(np.sort(rows)), parts=None)
    dealt = [
        datasets.split(
            learned,
            test_fraction=test_fraction,
            validation_fraction=validation_fraction,
            seed=outer.seed + number,
            strategy="grouped" if outer.keeps_groups else "stratified",
        )
        for number in range(num_splits)
    ]
    return InnerSplits(dataset, outer, tuple(dealt))


def sweep_cuts(
    splits: Sequence[Splits],
    config: TrainConfig,
    cuts: Sequence[str | None],
    *,
    cache: FeatureCache | None = None,
    report: Report = silent,
) -> SweepResult:
    """Trains at every cut on every split and judges on the split's test part.

    Args:
        splits: Two or more, as from `deal_inside`.
        config: The settings that all share; its `unfreeze_from` is not used.
        cuts: Values of `unfreeze_from`, as from `check_cuts`: `None` first.
        cache: As in `training.train`.
        report: Told how many trainings are done.

    Raises:
        ValueError: The head alone is not first.
        KeyboardInterrupt: A training was interrupted, so that its time and accuracy say nothing.
    """
    if not cuts or cuts[0] is not None:
        raise ValueError(f"cuts={list(cuts)}: expected None, the head alone, first.")

    found, total = [], len(cuts) * len(splits)
    for place, cut in enumerate(cuts):
        settings = dataclasses.replace(config, unfreeze_from=cut)
        within = functools.partial(_report_within, report, place * len(splits), total)
        found.append(_try_cut(splits, settings, cache, within))
    report(_TRAININGS, total, total, "")
    first = splits[0]
    ratio = len(first.test) / (len(first.train) + len(first.validation))
    return SweepResult(tuple(found), ratio)


def _report_within(
    report: Report, before: int, total: int, step: str, done: int, of: int, words: str
) -> None:
    if step == _TRAININGS:
        report(step, before + done, total, words)
    elif step == EXTRACTING:
        report(step, done, of, words)


def _try_cut(
    splits: Sequence[Splits], config: TrainConfig, cache: FeatureCache | None, report: Report
) -> CutResult:
    """Trains and judges on every split; of the models only numbers stay."""
    scores, seconds = [], []
    for number, split in enumerate(splits):
        report(_TRAININGS, number, len(splits), config.unfreeze_from or _HEAD_ALONE)
        trained = train(split, config, cache=cache, report=report)
        if trained.interrupted:
            raise KeyboardInterrupt
        started = time.perf_counter()
        groups = split.groups_of(split.test)
        judged = evaluate(trained.model, split.test, config=config, cache=cache, groups=groups)
        scores.append(scores_of(judged))
        seconds.append({**trained.seconds, "evaluate": time.perf_counter() - started})
    return CutResult(
        unfreeze_from=config.unfreeze_from,
        cut=trained.cut,
        head=trained.head,
        num_trained=count_trained(trained.model, trained.cut),
        scores=join_splits(scores),
        seconds=join_splits(seconds),
    )


def count_trained(classifier: keras.Model, cut: str | None) -> int:
    """Single numbers that training fits: trainable weights of all that the cut leaves above it.

    Args:
        classifier: As trained; of a kernel head its coefficients count, not the pictures it keeps.
        cut: The last frozen layer; `None` where nothing is frozen.
    """
    frozen = set() if cut is None else {e.name for e in backbones.layers_until(classifier, cut)}
    weights = [
        weight
        for layer in classifier.layers
        if layer.name not in frozen
        for weight in layer.trainable_weights
    ]
    return sum(int(np.prod(weight.shape)) for weight in weights)


@alone
def run_sweep(
    run: Run,
    dealt: InnerSplits,
    config: TrainConfig,
    cuts: Sequence[str | None],
    *,
    report: Report = silent,
    cache: FeatureCache | None = None,
) -> dict[str, Any]:
    """Sweeps, and writes it all into a run folder, metrics last.

    Args:
        run: A fresh run folder.
        dealt: As from `deal_inside`.
        config: As in `sweep_cuts`.
        cuts: As in `sweep_cuts`.
        report: Told how far it is.
        cache: Where activations are kept.

    Returns:
        What was written to `metrics.json`.
    """
    started = time.perf_counter()
    run.write_config(_describe(dealt, config, cuts))
    run.write_environment()
    swept = sweep_cuts(dealt.splits, config, cuts, cache=cache, report=report)
    plots.save_figure(_draw(swept), run.picture_path("sweep"))
    first = dealt.splits[0]
    metrics = {
        "sweep": {
            **swept.to_dict(),
            "num_splits": len(dealt.splits),
            "seeds": [split.seed for split in dealt.splits],
            "strategy": first.strategy,
            "num_train": len(first.train),
            "num_validation": len(first.validation),
            "num_judged": len(first.test),
            "num_untouched": len(dealt.outer.test),
        },
        "seconds": {"total": time.perf_counter() - started},
    }
    run.write_metrics(metrics)
    return metrics


def _describe(
    dealt: InnerSplits, config: TrainConfig, cuts: Sequence[str | None]
) -> dict[str, Any]:
    dataset, outer = dealt.dataset, dealt.outer
    return {
        "kind": KIND,
        "dataset": {
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "num_images": len(dataset),
            "class_names": list(dataset.class_names),
            **({"grouped_by": dataset.grouped_by} if dataset.grouped_by else {}),
            "problems": [str(problem) for problem in dataset.problems],
        },
        "split": {
            "strategy": outer.strategy,
            "seed": outer.seed,
            "asked": {**outer.asked, "splits": len(dealt.splits)},
            "untouched": known_pictures.shorten(outer.test.digests),
        },
        "cuts": list(cuts),
        "settings": dataclasses.asdict(config),
    }


def _draw(swept: SweepResult) -> plots.Picture:
    means = [swept.mean(cut) for cut in swept.cuts]
    return plots.plot_sweep(
        [cut.name for cut in swept.cuts],
        [cut.training_seconds for cut in swept.cuts],
        [(mean.value, mean.low, mean.high) for mean in means],
        recommended=swept.cuts.index(swept.recommended),
        threshold=swept.mean(swept.best).value - swept.margin,
    )
