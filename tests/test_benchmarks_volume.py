"""Benchmarks of many pictures: the model of time and cost, and tables made of results."""

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KNOWN = {
    "machine": {"cpu": "Some CPU", "cpu_family": "", "cores": 2},
    "versions": {"numpy": "2"},
}


def test_time_falls_with_workers_until_the_driver_limits(module):
    rates = module("volume.cost").Rates(0.15, 0.05, 0.002, 10.0)
    assert rates.seconds(1000, 1) == pytest.approx(10 + 200)
    assert rates.seconds(1000, 4) == pytest.approx(10 + 50)
    assert rates.most_workers == 100
    assert rates.seconds(10**6, 100) == pytest.approx(rates.seconds(10**6, 400)) == 2010
    # A core hour is a core hour: as long as the driver does not limit, only start-up adds to it.
    shared = [rates.core_hours(10**6, n) - (n + 1) * 10 / 3600 for n in (10, 100)]
    assert shared == pytest.approx([0.2 * 1e6 / 3600 * (n + 1) / n for n in (10, 100)])


@pytest.mark.parametrize(
    "numbers", [(-1, 0, 0, 0), (0, 0, 0, -1), (1, 1, 1, 1, 0), (1, 1, 1, 1, 2)]
)
def test_rates_that_cannot_be_are_refused(module, numbers):
    with pytest.raises(ValueError, match="expected"):
        module("volume.cost").Rates(*numbers)


def test_memory_has_a_row_for_each_work_and_what_a_picture_adds(module):
    peaks = {
        what: {
            "1000": {"peak_mib": 500.0, "num_computed": 1000, "seconds": 1.0},
            "100000": {"peak_mib": 511.0, "num_computed": 100_000, "seconds": 80.0},
        }
        for what in ("predict", "extract")
    }
    result = {"claim": module("volume_memory").CLAIM, **KNOWN, "peaks": peaks}
    text = module("report").render_table([result])
    assert "| peak memory, MiB | 1,000 pictures | 100,000 pictures |" in text
    assert f"| prediction into a table | 500 | 511 | {11 * 2**20 / 99_000:,.0f} |" in text


def test_workers_are_compared_with_one_and_start_up_stands_apart(module):
    driver = module("volume_cluster")
    rounds = [
        {"num_computed": 100, "seconds": 30.0, "working": 10.0, "start_up": 8.0,
         "driver_cpu": 0.001, "digest": digest}
        for digest in ("a", "a")
    ]  # fmt: skip
    one = driver.sum_up(rounds, "a")
    assert (one["per_second"], one["start_up"], one["same_bytes"]) == (10.0, 8.0, True)
    assert not driver.sum_up(rounds, "b")["same_bytes"]
    here = driver.sum_up(
        [{k: v for k, v in rounds[0].items() if k not in ("working", "start_up")}], "a"
    )
    assert here["per_second"] == pytest.approx(100 / 30)
    two = {**one, "per_second": 18.0}
    places = dict(zip(driver.PLACES, (here, one, two), strict=True))
    result = {
        "claim": driver.CLAIM, **KNOWN, "places": places, "num_images": 100, "image_size": 64,
        "rounds": 2, "load": 0.5,
    }  # fmt: skip
    text = module("report").render_table([result])
    assert "| ray, 2 workers | 18.0 | 1.80 | 8.0 | yes |" in text


def test_what_a_cluster_takes_says_what_was_not_measured(module):
    rates = {"compute": 0.16, "decode": 0.01, "driver": 1e-5, "start_up": 8.0, "efficiency": 0.9}
    result = {**KNOWN, "rates": rates, "is_assumed": True}
    page = "\n".join(module("volume.report").render_cost(result))
    assert "| network, VGG16 at 224 px | 160.0 ms | transfer_trunk_throughput |" in page
    assert "| start-up of the workers | 8 s | assumed, not measured |" in page
    seconds = 8 + 1e6 * 0.17 / (128 * 0.9)
    assert f"{129 * seconds / 3600:,.0f} |" in page
    measured = module("volume.report").render_cost({**result, "is_assumed": False})
    assert "assumed" not in "\n".join(measured)


def test_the_page_of_clusters_has_the_model_s_tables(module):
    report = module("volume.report")
    text = (BENCHMARKS.parent / "docs" / "cluster.md").read_text(encoding="utf-8")
    between = text.split(report.BEGIN + "\n")[1].split(report.END)[0]
    results = [r for r in module("report").read_results() if r["claim"] == report.COST_CLAIM]
    assert between == "".join("\n".join(report.render_cost(result)) for result in results[-1:])
