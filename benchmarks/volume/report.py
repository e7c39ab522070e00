"""Tables of volume: memory against number of pictures, workers, and what a cluster takes."""

from __future__ import annotations

from measuring import machine_name
from tables import table, versions_line
from volume.cost import Rates

MEMORY_CLAIM = "volume_memory"
CLUSTER_CLAIM = "volume_cluster"
COST_CLAIM = "volume_cost"
BEGIN, END = "<!-- cluster:begin -->", "<!-- cluster:end -->"
TITLES = {"predict": "prediction into a table", "extract": "extraction into the cache"}
NUMBERS = (10**6, 10**7, 10**8, 10**9)
WORKERS = (2, 16, 128)


def render_memory(result: dict) -> list[str]:
    """A row for each kind of work, a column for each number of pictures."""
    numbers = sorted({int(number) for of in result["peaks"].values() for number in of})
    rows = []
    for what, of in result["peaks"].items():
        peaks = [f"{of[str(number)]['peak_mib']:,.0f}" for number in numbers]
        first, last = (of[str(number)] for number in (numbers[0], numbers[-1]))
        more = 2**20 * (last["peak_mib"] - first["peak_mib"]) / (numbers[-1] - numbers[0])
        rows.append([TITLES[what], *peaks, f"{more:,.0f}"])
    header = ("peak memory, MiB", *(f"{number:,} pictures" for number in numbers))
    return [
        f"Resident memory of pictures of 32 x 32 through a network of two convolutions; "
        f"{machine_name(result['machine'])}.",
        "",
        *table((*header, "bytes for each further picture"), rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def render_cluster(result: dict) -> list[str]:
    """A row for each place of computing."""
    base = result["places"]["ray, 1 worker"]["per_second"]
    rows = [
        [
            name,
            f"{of['per_second']:.1f}",
            f"{of['per_second'] / base:.2f}",
            f"{of['start_up']:.1f}" if "start_up" in of else "",
            "yes" if of["same_bytes"] else "no",
        ]
        for name, of in result["places"].items()
    ]
    header = ("place", "pictures/s", "times one worker", "start-up, s", "the same table")
    return [
        f"VGG16 at {result['image_size']} px, {result['num_images']:,} pictures into a table, "
        f"medians of {result['rounds']} rounds, start-up apart, load "
        f"{result['load']:.1f}; {machine_name(result['machine'])}.",
        "",
        *table(header, rows),
        "",
        f"Measured with {versions_line([result])}.",
        "",
    ]


def render_cost(result: dict) -> list[str]:
    """What the model says, for docs/cluster.md."""
    rates = Rates(**result["rates"])
    cluster = "assumed, not measured" if result["is_assumed"] else "volume_cluster"
    sources = [
        ["network, VGG16 at 224 px", f"{1e3 * rates.compute:.1f} ms", "transfer_trunk_throughput"],
        ["reading and decoding, JPEG of 500 x 375", f"{1e3 * rates.decode:.1f} ms", "volume_cost"],
        ["driver, a row of the table", f"{1e3 * rates.driver:.3f} ms", "volume_cost"],
        ["start-up of the workers", f"{rates.start_up:.0f} s", cluster],
        ["two workers against twice one", f"{rates.efficiency:.2f}", cluster],
    ]
    rows = [
        [
            f"10^{len(str(number)) - 1}",
            *(_show(rates.seconds(number, workers)) for workers in WORKERS),
            f"{rates.core_hours(number, WORKERS[-1]):,.0f}",
        ]
        for number in NUMBERS
    ]
    header = ("pictures", *(f"{workers} workers" for workers in WORKERS), "core hours, 128 workers")
    return [
        f"Core time a picture, measured on {machine_name(result['machine'])}:",
        "",
        *table(("part", "takes", "from"), sources),
        "",
        *table(header, rows),
        "",
        f"Above {rates.most_workers:,} workers the driver is what limits. Money is core hours "
        "times the price of one: at 0.04 a core hour, an example, 10^6 pictures cost "
        f"{0.04 * rates.core_hours(10**6, WORKERS[-1]):,.2f}.",
        "",
    ]


def _show(seconds: float) -> str:
    for unit, size, most in (("s", 1, 120), ("min", 60, 120), ("h", 3600, 72)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:,.0f} days"
