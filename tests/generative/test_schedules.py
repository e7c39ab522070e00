import math

import keras
import numpy as np
import pytest

from safelight.generative.schedules import Pace, Plan, Stopwatch, average_decays, step_sizes


def test_step_sizes_are_adam_s():
    rates = np.array([0.1, 0.2, 0.3])
    t = np.array([5, 6, 7])
    wanted = rates * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    np.testing.assert_allclose(step_sizes(rates, 4), wanted, rtol=1e-12)


def test_with_these_decays_the_average_of_equal_weights_is_those_weights():
    """Whatever the start: the first step forgets most of it, so that what is left shrinks fast."""
    left = np.cumprod(average_decays(0.999, 0, 2000))
    # (1 + t) / (10 + t), t from 1 to n, telescopes to 10! / ((n + 2) ... (n + 10)).
    n = 500
    wanted = math.factorial(10) / math.prod(range(n + 2, n + 11))
    assert left[n - 1] == pytest.approx(wanted, rel=1e-9)
    assert average_decays(0.999, 10**6, 3) == pytest.approx([0.999] * 3)
    assert not average_decays(0.0, 0, 5).any()


def test_blocks_give_the_same_as_one_go():
    plan = Plan(((3, 0.0), (20, 0.5), (30, 1.0)))
    whole = plan.learning_rates(0.1, 0, 30)
    parts = [plan.learning_rates(0.1, first, 10) for first in (0, 10, 20)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    decays = [average_decays(0.99, first, 10) for first in (0, 10, 20)]
    np.testing.assert_array_equal(average_decays(0.99, 0, 30), np.concatenate(decays))


def test_learning_rates_are_those_of_keras_cosine_decay():
    schedule = keras.optimizers.schedules.CosineDecay(0.3, 40)
    wanted = [float(keras.ops.convert_to_numpy(schedule(step))) for step in range(40)]
    np.testing.assert_allclose(Plan.until(40).learning_rates(0.3, 0, 40), wanted, rtol=1e-4)


def test_a_moved_plan_keeps_its_past_and_bends_without_a_jump():
    plan = Plan.until(100, start=10)
    moved = plan.moved(40, 60)
    steps = np.arange(41)
    np.testing.assert_array_equal(plan.progress(steps), moved.progress(steps))
    assert moved.num_steps == 60
    assert moved.progress(60) == 1
    assert moved.progress(50) == pytest.approx((1 + 1 / 3) / 2)
    assert Plan.from_json([[10, 0], [100, 1]]) == plan


def test_an_open_plan_has_no_end_and_the_full_learning_rate():
    assert Plan().num_steps == math.inf
    np.testing.assert_array_equal(Plan().learning_rates(0.2, 500, 3), [0.2] * 3)


def test_a_pace_and_the_watch_that_starts_it_have_one_clock():
    """Nobody's `now` is given in a training: another zero than the watch's would end it at once."""
    plan = Plan()
    pace = Pace(3600, started=Stopwatch().started)
    assert pace.revise(pace.revise(plan, 1), 2) is plan


def run_for(seconds, machine, block=5):
    """The plans in force, and the time that all took."""
    pace, plan, plans = Pace(seconds, started=machine.now(), now=machine.now), Plan(), []
    while machine.step < plan.num_steps:
        machine.run(min(block, 10**9 if plan.num_steps == math.inf else plan.num_steps) or 1)
        plan = pace.revise(plan, machine.step)
        if not plans or plans[-1] != plan:
            plans.append(plan)
    return plans, machine.now() - 100.0


def test_a_steady_machine_gets_one_plan_that_fills_the_time(machine):
    plans, seconds = run_for(60, machine(lambda step: 0.02, compilation=4.0))
    assert [p for p in plans if p.num_steps < math.inf] == plans[-1:]
    assert 0.97 * 60 <= seconds <= 60
    # What compilation took does not count as the speed of a step.
    assert plans[-1].num_steps == pytest.approx((60 - 4) / 0.02, rel=0.02)


@pytest.mark.parametrize("factor", [1.5, 0.6])
def test_a_machine_that_changes_its_speed_still_ends_in_time(factor, machine):
    def speed(step):
        return 0.02 if step < 1000 else 0.02 * factor

    plans, seconds = run_for(60, machine(speed))
    assert 0.95 * 60 <= seconds <= 1.03 * 60
    progress = plans[-1].progress(np.arange(plans[-1].num_steps + 1))
    assert progress[-1] == 1
    assert (np.diff(progress) >= 0).all()
    assert np.diff(progress).max() < 3 / plans[-1].num_steps


def test_what_is_forgotten_does_not_count_for_the_speed(machine):
    """Steps that cost four times as much from a known moment on: the end is right at once."""
    machine = machine(lambda step: 0.02 if step < 2250 else 0.08)
    pace, plan = Pace(60, started=machine.now(), now=machine.now), Plan()
    while machine.step < 2250:
        machine.run(5)
        plan = pace.revise(plan, machine.step)
    pace.forget()
    for _ in range(2):
        machine.run(5)
        plan = pace.revise(plan, machine.step)
    assert plan.num_steps == pytest.approx(2250 + (0.99 * 60 - 45) / 0.08, abs=1)


def test_steps_too_long_for_the_time_still_end_it(machine):
    plans, seconds = run_for(10, machine(lambda step: 8.0), block=1)
    assert plans[-1].num_steps <= 3
    assert seconds <= 24


def test_the_total_is_guessed_from_the_clock_while_there_is_no_plan(machine):
    machine = machine(lambda step: 0.1)
    pace = Pace(100, started=machine.now(), now=machine.now)
    machine.run(30)
    assert pace.total(machine.step) == pytest.approx(1000, rel=0.01)
