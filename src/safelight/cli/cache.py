"""`safelight cache list|verify|clear`: activations are kept so that no frozen layer runs twice."""

from __future__ import annotations

import datetime

import typer

from safelight.cli import console

app = typer.Typer(
    help="See, check or clear the kept activations of frozen layers.", no_args_is_help=True
)


@app.command(name="list")
def list_() -> None:
    """Show what is kept, newest use first, and the limit."""
    from safelight.transfer.feature_cache import FeatureCache

    cache = FeatureCache()
    entries = cache.entries()
    rows = []
    for entry in entries:
        facts = entry.facts
        used = datetime.datetime.fromtimestamp(entry.last_used, tz=datetime.UTC)
        layer = (
            f"{facts.get('layer')}/{facts['pooling']}"
            if facts.get("pooling")
            else facts.get("layer")
        )
        rows.append(
            [
                entry.key[:8],
                str(facts.get("network")),
                str(layer),
                str(facts.get("view")),
                str(facts.get("precision")),
                f"{entry.num_rows:,}",
                console.megabytes(entry.bytes),
                f"{used:%Y-%m-%d}",
            ]
        )
    names = ["key", "network", "layer", "view", "precision", "images", "size", "last used"]
    console.table(names, rows, right=("images", "size"))
    total = sum(entry.bytes for entry in entries)
    limit = console.megabytes(cache.max_bytes)
    console.say(f"{len(entries)} entries, {console.megabytes(total)} of {limit} in {cache.root}")


@app.command()
def verify() -> None:
    """Read all of it again; what has changed on the disk is deleted, to be computed anew.

    Exits with 1 if anything was damaged.
    """
    from safelight.transfer.feature_cache import FeatureCache

    cache = FeatureCache()
    damaged = cache.verify()
    console.say(
        f"{len(damaged)} entries checked in {cache.root}, {sum(damaged.values())} damaged shards "
        "deleted"
    )
    if any(damaged.values()):
        raise typer.Exit(1)


@app.command()
def clear() -> None:
    """Delete all of it; whatever is needed again is computed again."""
    from safelight.transfer.feature_cache import FeatureCache

    cache = FeatureCache()
    count, size = cache.clear()
    console.say(f"deleted {count} entries, {console.megabytes(size)}, from {cache.root}")
