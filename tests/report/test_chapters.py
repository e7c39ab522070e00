"""What each kind of run is told by: the right advice, from the right numbers."""

import pytest

from safelight.report import advice, autoencoder_advice
from safelight.report import sweep as sweeps
from safelight.report.data_problems import tell_data
from safelight.report.page import render
from safelight.report.probabilities import answered_when_sure, read_answers
from safelight.report.reading import read_run
from safelight.runs import Run


def with_metrics(run, **changes):
    run.write_metrics({**run.metrics, **changes})
    return read_run(run.path)


def commands(steps):
    return [step.command for step in steps if step.command]


def words_of(steps):
    return " ".join(str(step.words) for step in steps)


# --- classifiers


def test_the_number_to_beat_is_that_of_the_commonest_class(make_classifier):
    reading = read_run(make_classifier(names=("cat", "dog")).path)
    rows = reading.metrics["per_class"]
    name, share = advice.baseline(reading)
    assert share == max(row["support"] for row in rows) / 60
    assert name in ("cat", "dog")


def test_an_accuracy_that_may_be_guessing_is_called_so(make_classifier):
    poor = render([read_run(make_classifier(skill=0.0).path)])
    assert "not shown to be better than guessing" in poor
    assert "Is that enough?" not in poor
    assert "clearly better than guessing" in render([read_run(make_classifier(skill=4.0).path)])


def test_a_wide_interval_is_no_ground_for_a_verdict(make_classifier):
    run = make_classifier(skill=4.0)
    wide = with_metrics(run, accuracy={"value": 0.9, "low": 0.5, "high": 0.97})
    assert "Too few pictures judged to say" in render([wide])
    narrow = with_metrics(run, accuracy={"value": 0.9, "low": 0.85, "high": 0.94})
    assert "If so many wrong answers do no harm, yes" in render([narrow])


def test_few_pictures_that_judge_call_for_folds_and_splits_do_not(make_classifier):
    run = make_classifier()
    reading = read_run(run.path)
    accuracy = reading.interval("accuracy")
    assert any("--folds 5" in line for line in commands(advice.next_steps(reading, accuracy)))
    folds = with_metrics(run, splits={"num_splits": 5, "num_folds": 5})
    assert not any("--folds" in line for line in commands(advice.next_steps(folds, accuracy)[:3]))


def test_the_weakest_class_is_named_only_where_it_is_not_chance(make_classifier):
    run = make_classifier(names=("cat", "dog"))
    rows = run.metrics["per_class"]
    clear = [{"value": 0.5, "low": 0.4, "high": 0.6}, {"value": 0.9, "low": 0.8, "high": 0.95}]
    vague = [{"value": 0.5, "low": 0.2, "high": 0.9}, {"value": 0.9, "low": 0.8, "high": 0.95}]
    for recalls, named in ((clear, True), (vague, False)):
        table = [{**row, "recall": recall} for row, recall in zip(rows, recalls, strict=True)]
        reading = with_metrics(run, per_class=table)
        said = words_of(advice.next_steps(reading, None))
        assert ("Collect more pictures of <bdi>cat</bdi>" in said) is named


def test_series_torn_apart_call_for_a_grouped_split(make_classifier):
    run = make_classifier()
    told = {"advice": "numbers are optimistic; train with --split grouped."}
    reading = with_metrics(run, data={**run.metrics["data"], "neighbours": told})
    assert any("--split grouped" in line for line in commands(advice.next_steps(reading, None)))


def test_a_learning_curve_takes_the_place_of_the_question(make_classifier):
    run = make_classifier()
    whole = {name: run.metrics[name] for name in ("accuracy", "num_test", "class_names")}
    curve = {"gains": [{"more": 100, "value": 0.02, "low": 0.01, "high": 0.04}]}
    run.write_metrics({**whole, "learning_curve": curve})
    steps = advice.next_steps(read_run(run.path), None)
    assert "+2.0" in words_of(steps)
    assert not any("learning-curve" in line for line in commands(steps))


def test_sure_answers_are_counted_from_the_predictions(make_classifier):
    reading = read_run(make_classifier().path)
    answers = read_answers(reading)
    sure = answers.probabilities.max(1)
    right = answers.probabilities.argmax(1) == answers.labels
    rows = answered_when_sure(reading)
    for row in rows:
        assert row.number == (sure >= row.threshold).sum()
        if row.number:
            assert row.accuracy.value == pytest.approx(right[sure >= row.threshold].mean())
    numbers = [row.number for row in rows]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] > 0


@pytest.mark.parametrize("kind", ["classifier", "vae"])
def test_a_run_that_did_not_finish_is_only_told_to_be_trained_again(
    kind, make_classifier, make_vae
):
    run = make_classifier() if kind == "classifier" else make_vae()
    (run.path / "metrics.json").unlink()
    reading = read_run(run.path)
    steps = (
        advice.next_steps(reading, None)
        if kind == "classifier"
        else autoencoder_advice.next_steps(reading)
    )
    (step,) = steps
    assert f"--output {run.name}" in step.command


def test_no_more_steps_than_fit_the_first_screen(make_classifier, make_vae):
    reading = read_run(make_classifier().path)
    steps = advice.next_steps(reading, reading.interval("accuracy"))
    assert 1 <= len(steps) <= advice.MAX_STEPS
    steps = autoencoder_advice.next_steps(read_run(make_vae().path))
    assert 1 <= len(steps) <= autoencoder_advice.MAX_STEPS


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "pets"])
@pytest.mark.parametrize("number", [0, 3])
def test_near_copies_are_not_ruled_out_where_nobody_looked_for_them(make_classifier, name, number):
    run = make_classifier(dataset=name)
    run.write_config({**run.config, "dataset": {**run.config["dataset"], "duplicates": number}})
    text = " ".join(str(getattr(each, "words", "")) for each in tell_data(read_run(run.path)))
    assert ("nearly" in text) == (name == "pets")
    assert ("only exact copies were looked for" in text) == (name != "pets")


# --- autoencoders


def test_an_elbo_that_still_rises_calls_for_more_epochs(make_vae):
    run = make_vae()
    assert any(
        "--epochs 12" in x for x in commands(autoencoder_advice.next_steps(read_run(run.path)))
    )
    run.write_history({"epoch": [1, 2, 3], "elbo": [-9.0] * 3, "val_elbo": [-9.0] * 3})
    steps = autoencoder_advice.next_steps(read_run(run.path))
    assert "Train longer" not in words_of(steps)


def test_epochs_that_were_not_judged_are_counted_all_the_same(make_vae):
    run, nan = make_vae(), float("nan")
    held_out = [-99.0, nan, nan, -95.0, nan, nan, nan, -92.0]
    run.write_history({"epoch": range(1, 9), "elbo": [-90.0] * 8, "val_elbo": held_out})
    steps = autoencoder_advice.next_steps(read_run(run.path))
    assert '<data value="4.0">4</data> of <data value="8.0">8</data> epochs' in words_of(steps)
    assert '<data value="3.0">3.0</data> nats' in words_of(steps)
    assert any("--epochs 32" in line for line in commands(steps))


def test_an_elbo_that_falls_on_held_out_pictures_is_overfitting(make_vae):
    run = make_vae()
    run.write_history(
        {"epoch": [1, 2, 3], "elbo": [-99.0, -90.0, -80.0], "val_elbo": [-99.0, -95.0, -97.0]}
    )
    said = words_of(autoencoder_advice.next_steps(read_run(run.path)))
    assert "by heart" in said
    assert "17.0" in said


def test_units_that_sleep_are_told(make_vae):
    run = make_vae(settings={"epochs": 30})
    said = words_of(autoencoder_advice.next_steps(with_metrics(run, active_units=1)))
    assert "Only" in said
    assert "--warmup-epochs 10 or --free-bits 0.1 or --beta 0.5 may wake more" in said
    assert "All" in words_of(autoencoder_advice.next_steps(read_run(make_vae().path)))


def test_what_a_run_s_settings_exclude_is_not_advised(make_vae):
    broken = {"final_samples": 5, "prior": "flow", "warmup_epochs": [7], "beta": "x"}
    run = make_vae(settings={**broken, "epochs": 30})
    said = words_of(autoencoder_advice.next_steps(with_metrics(run, active_units=1)))
    assert "--warmup-epochs 10 may wake more" in said
    assert "--beta" not in said
    assert "--free-bits" not in said


def test_one_epoch_has_no_room_for_a_warm_up(make_vae):
    run = make_vae(settings={"epochs": 1, "num_samples": 5})
    said = words_of(autoencoder_advice.next_steps(with_metrics(run, active_units=1)))
    assert "as many would do, and more epochs may wake more" in said


def test_the_gap_is_of_the_same_pictures(make_vae):
    """Log p(x) less the ELBO, where one is of fewer pictures, is mostly chance."""
    run = with_metrics(make_vae(), importance_sampling={"num_images": 7}, gap=None)
    assert "the ELBO is" not in " ".join(map(str, autoencoder_advice.judge(run)))
    gap = {"value": 4.25, "low": 4.0, "high": 4.5}
    run = with_metrics(make_vae(), importance_sampling={"num_images": 7}, gap=gap)
    assert "the ELBO is" in (said := " ".join(map(str, autoencoder_advice.judge(run))))
    assert "4.2" in said
    assert "95 % intervals; log p(x) on 7 of its pictures" in render([run])


def test_pictures_that_a_kind_of_run_has_not_are_not_missed(make_vae):
    plain, flow = make_vae(), make_vae(settings={"prior": "flow"})
    two, one = make_vae(settings={"second_latent_dim": 3}), make_vae(settings={"latent_dim": 1})
    told = make_vae(settings={"conditional": True})
    for run in (plain, flow, two, one, told):
        for path in (run.path / "pictures").glob("*.png"):
            path.unlink()
    plain, flow, two, one, told = (
        render([read_run(run.path)]) for run in (plain, flow, two, one, told)
    )
    missed = {"kl_per_unit": one, "aggregate": flow, "interpolation": plain, "traversals": told}
    for name, there in {**missed, "latent_manifold": two}.items():
        assert f"The picture {name}.png is missing" in there
    assert "kl_per_unit.png" not in flow + two
    assert "aggregate.png" not in two + one
    assert "latent_manifold.png" not in one
    assert "interpolation.png" not in told
    assert "KL from N(0, 1)" in flow
    assert "KL from N(0, 1)" not in plain


def test_bits_per_value_follow_from_nats(make_vae):
    """784 values and log 2 nats each are one bit each."""
    reading = with_metrics(make_vae(), log_likelihood={"value": -543.4273895}, elbo=None)
    assert '<data value="1.0000000' in str(autoencoder_advice.judge(reading)[0]) or (
        '<data value="0.99999' in str(autoencoder_advice.judge(reading)[0])
    )


# --- sweeps


def cut(name, accuracy, minus=None):
    interval = {"value": accuracy, "low": accuracy - 0.02, "high": accuracy + 0.02}
    return {
        "name": name, "unfreeze_from": None if minus is None else name, "accuracy": interval,
        "minus_head_alone": minus, "scores": {"accuracy": [accuracy, accuracy]},
        "training_seconds": 2.5, "num_trained": 1000,
    }  # fmt: skip


def test_a_sweep_says_which_cut_to_take(tmp_path):
    run = Run.create(tmp_path / "sweep")
    dataset = {"name": "pets", "class_names": ["cat", "dog"]}
    settings = {"seed": 3, "epochs": 6}
    run.write_config(
        {
            "kind": "transfer-sweep",
            "dataset": dataset,
            "cuts": [None, "block5"],
            "settings": settings,
        }
    )
    better = {"value": 0.05, "low": 0.02, "high": 0.08}
    sweep = {
        "cuts": [cut("head alone", 0.8), cut("block5", 0.85, better)], "recommended": "block5",
        "reading": "block5: the best.", "num_untouched": 30, "num_splits": 3, "method": "m",
    }  # fmt: skip
    run.write_metrics({"sweep": sweep})
    reading = read_run(run.path)
    page = render([reading])
    assert "<strong><bdi>block5</bdi></strong>" in page
    assert '<data value="0.05">+5.0</data>' in page
    assert '<span class="part">--unfreeze-from</span> <span class="part">block5</span>' in page
    assert '<span class="part">--cut</span> <span class="part">block5</span>' in page
    (line,) = commands(sweeps.answer(reading).steps)
    assert "--unfreeze-from block5" in line
    assert "--seed 3" in line  # of another seed the 30 pictures that were not used are others
    assert "--cut" not in line
