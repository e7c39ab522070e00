"""The charts of a page: arrays in, a drawing with its description and table out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from safelight.metrics import Interval
from safelight.report import words
from safelight.report.blocks import Chart, Table, Words
from safelight.report.svg import WIDTH, Drawing, Scale, digits_of, span, ticks

_ROW = 30.0  # of a chart with a row per number
_LABEL, _VALUE = 130.0, 94.0  # to the left and right of its axis
_MAX_MARKS = 60
MAX_CELLS = 16
"""Classes whose confusion matrix can still be read as a drawing."""


@dataclass(frozen=True)
class Row:
    """One number of a chart with a row each.

    Attributes:
        label: Its name.
        marks: One interval, or two of different kinds.
        dots: Single results that it sums up.
    """

    label: str
    marks: tuple[Interval, ...]
    dots: tuple[float, ...] = ()


@dataclass(frozen=True)
class Axis:
    """What an axis shows.

    Attributes:
        label: With its unit.
        scale: Shown is `scale * number`.
        limits: Both ends; by default what the numbers need.
        reference: A line across, and what it is called.
        digits: After the point, of numbers beside the marks.
        sign: Whether these show a plus.
    """

    label: str
    scale: float = 1
    limits: tuple[float, float] | None = None
    reference: tuple[float, str] | None = None
    digits: int = 1
    sign: bool = False


def interval_rows(
    title: str, rows: Sequence[Row], axis: Axis, *, kinds: Sequence[str] = ("",)
) -> Chart:
    """A row per number: its mark, its interval, and its value beside it.

    Args:
        title: What it shows.
        rows: At least one whose number is finite.
        axis: Of the numbers.
        kinds: What the marks of a row are called, where there are two.

    Raises:
        ValueError: There is nothing to draw.
    """
    numbers = [
        x
        for row in rows
        for x in (*row.dots, *(end for m in row.marks for end in (m.value, m.low, m.high)))
    ]
    numbers += [axis.reference[0]] if axis.reference else []
    low, high = axis.limits or span(numbers)
    top = 28.0 if axis.reference or len(kinds) > 1 else 10.0
    bottom = top + _ROW * len(rows)
    drawing = Drawing(title, _describe_rows(rows, axis, kinds), bottom + 46)
    scale = Scale(low, high, _LABEL, WIDTH - _VALUE)
    _bottom_axis(drawing, scale, (top, bottom), axis)
    if axis.reference:
        place, label = scale(axis.reference[0]), axis.reference[1]
        drawing.line((place, top - 6), (place, bottom), "reference")
        drawing.text((place, top - 15), label, "small", anchor=_anchor(place))
    elif len(kinds) > 1:
        _legend(drawing, kinds)
    for number, row in enumerate(rows):
        _draw_row(drawing, row, top + _ROW * (number + 0.5), scale, axis)
    return Chart(drawing.to_markup(), title, _table_of_rows(title, rows, axis, kinds))


def meter(title: str, found: Interval, axis: Axis) -> Chart:
    """One number on the whole of its axis, with its interval.

    Args:
        title: What it shows.
        found: The number.
        axis: With limits; its reference is the number to beat.
    """
    low, high = axis.limits or span([found.value, found.low, found.high])
    scale = Scale(low, high, 4, WIDTH - 4)
    top, height = 28.0, 16.0
    against = ""
    drawing_description = f"{axis.label}: {_said_interval(found, axis)}"
    if axis.reference:
        against = f"; {axis.reference[1]}: {_said(axis.reference[0], axis)}"
    drawing = Drawing(title, f"{drawing_description}{against}.", 76)
    drawing.rectangle((scale.start, top), (scale.end - scale.start, height), "track")
    if math.isfinite(found.low) and math.isfinite(found.high):
        ends = scale(found.low), scale(found.high)
        tip = f"interval {_said(found.low, axis)} to {_said(found.high, axis)}"
        drawing.rectangle((ends[0], top), (ends[1] - ends[0], height), "band", tip=tip)
    drawing.line(
        (scale(found.value), top - 4), (scale(found.value), top + height + 4), "value-line"
    )
    for tick in ticks(low * axis.scale, high * axis.scale, 4):
        x = scale(tick / axis.scale)
        anchor = _anchor(x) if x in (scale.start, scale.end) else "middle"
        said = words.plain(tick, 0) + (" %" if axis.scale == 100 else "")
        drawing.text((x, top + height + 16), said, "small", anchor=anchor)
    if axis.reference:
        x = scale(axis.reference[0])
        drawing.line((x, top - 6), (x, top + height + 4), "reference")
        drawing.text((x, top - 15), axis.reference[1], "small", anchor=_anchor(x))
    return Chart(drawing.to_markup(), title)


def curves(
    title: str, lines: Mapping[str, Sequence[float]], x: Sequence[float], axis: Axis
) -> Chart:
    """Lines over the epochs, at most two, with a mark for each number that there is.

    Args:
        title: What it shows.
        lines: A number per epoch, NaN where there is none; the line goes on to the next.
        x: The epochs.
        axis: Upwards; what lies beyond its limits is left out, and the caption says so.

    Raises:
        ValueError: There is nothing to draw.
    """
    there = {
        name: [(e, axis.scale * v) for e, v in zip(x, line, strict=True) if math.isfinite(v)]
        for name, line in lines.items()
    }
    there = {name: line for name, line in there.items() if line}
    low, high = span([v for line in there.values() for _, v in line])
    if axis.limits:
        low, high = (axis.scale * end for end in axis.limits)
    said = ", ".join(
        f"{name} ends at {line[-1][1]:.{axis.digits}f}" for name, line in there.items()
    )
    drawing = Drawing(title, f"{axis.label} over {len(x)} epochs: {said}.", 250)
    scales = Scale(min(x), max(*x, min(x) + 1), 62, WIDTH - 22), Scale(low, high, 200, 34)
    places = whole_ticks(min(x), max(x)), ticks(low, high)
    _grid(drawing, scales, places, ("epoch", axis.label))
    left_out = 0
    for (name, line), style in zip(there.items(), ("first", "second"), strict=False):
        inside = [(e, v) for e, v in line if low <= v <= high]
        left_out += len(line) - len(inside)
        _draw_curve(drawing, {name: inside}, scales, style, axis.digits + 1)
    _legend(drawing, list(there))
    lies = "number lies" if left_out == 1 else "numbers lie"
    more = f"; {left_out} {lies} beyond the frame" if left_out else ""
    return Chart(drawing.to_markup(), f"{title}{more}", _table_of_curves(title, there, x, axis))


def _draw_curve(
    drawing: Drawing,
    named: Mapping[str, Sequence[tuple[float, float]]],
    scales: tuple[Scale, Scale],
    style: str,
    digits: int,
) -> None:
    across, up = scales
    for name, line in named.items():
        drawing.path([(across(e), up(v)) for e, v in line], f"line {style}")
        for e, v in line if len(line) <= _MAX_MARKS else ():
            _mark(drawing, (across(e), up(v)), style, f"{name}, epoch {e:g}: {v:.{digits}f}")


def _table_of_curves(
    title: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    x: Sequence[float],
    axis: Axis,
) -> Table:
    values = [dict(line) for line in lines.values()]
    rows: list[list[Words]] = [
        [
            f"{e:g}",
            *(
                words.number(each[e] / axis.scale, axis.digits + 1, scale=axis.scale)
                if e in each
                else "–"
                for each in values
            ),
        ]
        for e in x
    ]
    return Table(f"{title}: {axis.label}", ["epoch", *lines], rows)


def confusion(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Chart:
    """How often pictures of one class were taken for which: true classes in rows.

    Args:
        counts: `(n, n)` numbers of pictures; at most `MAX_CELLS` classes.
        class_names: n names.
    """
    size, left = len(class_names), 116.0
    top = 48.0 if size <= 4 else 120.0
    width = min(110.0, (WIDTH - left - 8) / size)
    cell = (width, min(width, 60.0))
    right = sum(counts[i][i] for i in range(size))
    told = (
        f"True classes in rows, answers in columns; {right} of {sum(map(sum, counts))} are right."
    )
    drawing = Drawing("Confusion matrix", told, top + cell[1] * size + 12)
    _name_cells(drawing, class_names, (left, top), cell)
    names = [words.printable(name) for name in class_names]
    for i, row in enumerate(counts):
        for j, found in enumerate(row):
            share = found / sum(row) if sum(row) else 0.0
            corner = (left + cell[0] * j, top + cell[1] * i)
            tip = f"{names[i]} taken for {names[j]}: {found} of {sum(row)}"
            _draw_cell(drawing, (corner, cell), (found, share), tip)
    return Chart(
        drawing.to_markup(),
        "Pictures by class (rows) and answer (columns); colour is the share of the row",
        _table_of_counts(counts, class_names),
    )


def _name_cells(
    drawing: Drawing,
    class_names: Sequence[str],
    corner: tuple[float, float],
    cell: tuple[float, float],
) -> None:
    (left, top), (width, height) = corner, cell
    drawing.text((left, 10), "answer →", "axis-name")
    drawing.text((left - 8, top - 14), "truth ↓", "axis-name", anchor="end")
    letters = max(3, int(width / 8.4))
    for number, name in enumerate(class_names):
        middle, row = left + width * (number + 0.5), top + height * (number + 0.5)
        if len(class_names) <= 4:
            drawing.text((middle, top - 14), words.shorten(name, letters), anchor="middle")
        else:
            drawing.text((middle, top - 8), words.shorten(name, 13), "row-name", turned=-90)
        drawing.text((left - 8, row), words.shorten(name, 14), "row-name", anchor="end")


def _draw_cell(
    drawing: Drawing,
    box: tuple[tuple[float, float], tuple[float, float]],
    found: tuple[int, float],
    tip: str,
) -> None:
    (x, y), (width, height) = box
    size = (width - 2, height - 2)
    drawing.rectangle((x, y), size, "cell")
    drawing.rectangle((x, y), size, "heat", opacity=0.8 * found[1], tip=tip)
    _cell_text(drawing, (x + width / 2 - 1, y + height / 2 - 1), found, (width, height))


def _table_of_counts(counts: Sequence[Sequence[int]], class_names: Sequence[str]) -> Table:
    columns: list[Words] = ["truth", *(words.name(name) for name in class_names)]
    rows: list[list[Words]] = [
        [words.name(name), *(words.count(n) for n in row)]
        for name, row in zip(class_names, counts, strict=True)
    ]
    return Table("Confusion matrix: answers in columns", columns, rows)


def reliability(bins: Sequence[tuple[float, Interval, int]]) -> Chart:
    """How sure it is against how often it is right.

    Args:
        bins: Mean confidence, accuracy with its interval, number of pictures; as from
            `metrics.calibration_bins`.
    """
    title = "How sure it is, and how often it is right"
    apart = sum(accuracy.low > mean or accuracy.high < mean for mean, accuracy, _ in bins)
    told = (
        f"{len(bins)} groups of pictures by confidence; in {apart} of them the interval of the "
        "accuracy does not reach the confidence."
    )
    drawing = Drawing(title, told, 330)
    # Answers that are all wholly sure still need an axis.
    low = min(0.9, math.floor(10 * min(mean for mean, _, _ in bins)) / 10)
    across, up = Scale(low, 1, 62, WIDTH - 22), Scale(0, 1, 276, 20)
    _grid(
        drawing,
        (across, up),
        (ticks(low, 1), ticks(0, 1)),
        ("stated confidence, %", "right, %"),
        scale=100,
    )
    drawing.line((across(low), up(low)), (across(1), up(1)), "reference")
    drawing.text((across.end, up.start - 12), "dashed: as sure as right", "small", anchor="end")
    most = max(number for _, _, number in bins)
    for mean, accuracy, number in bins:
        x = across(mean)
        drawing.whisker((x, up(accuracy.low)), (x, up(accuracy.high)))
        tip = (
            f"confidence {100 * mean:.1f} %, right {100 * accuracy.value:.1f} %, {number} pictures"
        )
        drawing.circle(
            (x, up(accuracy.value)), 3.5 + 5 * math.sqrt(number / most), "mark first", tip=tip
        )
    rows = [
        [words.percent(mean), words.percent_interval(accuracy), words.count(number)]
        for mean, accuracy, number in bins
    ]
    return Chart(
        drawing.to_markup(),
        "Accuracy among pictures of about the same confidence, with 95 % intervals; larger dots "
        "stand for more pictures",
        Table(title, ["confidence", "right", "pictures"], rows),
    )


def bars(title: str, values: Sequence[float], axis: Axis, *, row: str) -> Chart:
    """Bars from the highest to the lowest.

    Args:
        title: What it shows.
        values: One number each, 0 or more.
        axis: Upwards.
        row: What a bar stands for.
    """
    order = sorted(range(len(values)), key=lambda i: -values[i])
    high = max(*values, 1e-9) * 1.05
    drawing = Drawing(
        title, f"{len(values)} bars; the highest is {max(values):.2f}, of {row} {order[0]}.", 230
    )
    across, up = Scale(0, len(values), 62, WIDTH - 12), Scale(0, high, 190, 18)
    _grid(drawing, (across, up), ([], ticks(0, high)), (f"{row}s, highest first", axis.label))
    width = (across.end - across.start) / len(values)
    for place, index in enumerate(order):
        top = up(values[index])
        corner = (across.start + width * (place + 0.1), top)
        drawing.rectangle(
            corner, (width * 0.8, up.start - top), "bar", tip=f"{row} {index}: {values[index]:.3f}"
        )
    rows = [[f"{index}", words.number(values[index], axis.digits)] for index in order]
    return Chart(drawing.to_markup(), title, Table(title, [row, axis.label], rows))


def whole_ticks(low: float, high: float) -> list[float]:
    """Ticks at whole numbers."""
    return [place for place in ticks(low, max(high, low + 1), 6) if place == int(place)]


def _draw_row(drawing: Drawing, row: Row, y: float, scale: Scale, axis: Axis) -> None:
    drawing.text((_LABEL - 10, y), words.shorten(row.label, 17), "row-name", anchor="end")
    for dot in row.dots:
        drawing.circle((scale(dot), y), 3, "dot", tip=_said(dot, axis))
    apart = 5.0 * (len(row.marks) - 1)
    for place, (mark, style) in enumerate(zip(row.marks, ("first", "second"), strict=False)):
        height = y - apart + 2 * apart * place
        if not math.isfinite(mark.value):
            continue
        drawing.whisker((scale(mark.low), height), (scale(mark.high), height))
        _mark(drawing, (scale(mark.value), height), style, _said_interval(mark, axis))
    value = row.marks[0]
    said = _said(value.value, axis) if len(row.marks) == 1 else _said_short(row.marks, axis)
    drawing.text((WIDTH - _VALUE + 12, y), said, "value")


def _mark(drawing: Drawing, place: tuple[float, float], style: str, tip: str) -> None:
    """A dot for the first kind, an open diamond for the second: colour alone tells nobody."""
    if style == "first":
        drawing.circle(place, 4.2, f"mark {style}", tip=tip)
    else:
        drawing.diamond(place, 5.2, f"mark {style}", tip=tip)


def _cell_text(
    drawing: Drawing,
    middle: tuple[float, float],
    found: tuple[int, float],
    size: tuple[float, float],
) -> None:
    (number, share), (width, height) = found, size
    x, y = middle
    if width < 17 or (number == 0 and width < 30):
        return
    if width < 44 or height < 34:
        drawing.text((x, y), f"{number}", "small ink", anchor="middle")
        return
    drawing.text((x, y - 8), f"{number:,}", "ink strong", anchor="middle")
    drawing.text((x, y + 9), f"{100 * share:.0f} %", "small ink", anchor="middle")


def _legend(drawing: Drawing, names: Sequence[str]) -> None:
    x = 62.0
    for name, style in zip(names, ("first", "second"), strict=False):
        _mark(drawing, (x + 6, 12), style, "")
        drawing.text((x + 18, 12), name, "small")
        x += 34 + 6.6 * len(name)


def _bottom_axis(drawing: Drawing, scale: Scale, ends: tuple[float, float], axis: Axis) -> None:
    top, bottom = ends
    places = ticks(scale.low * axis.scale, scale.high * axis.scale, 4)
    digits = digits_of(places)
    for place in places:
        x = scale(place / axis.scale)
        drawing.line((x, top), (x, bottom), "grid")
        drawing.text((x, bottom + 14), words.plain(place, digits), "small", anchor="middle")
    drawing.line((scale.start, bottom), (scale.end, bottom), "axis")
    middle = (scale.start + scale.end) / 2
    drawing.text((middle, bottom + 34), axis.label, "axis-name", anchor="middle")


def _grid(
    drawing: Drawing,
    scales: tuple[Scale, Scale],
    places: tuple[Sequence[float], Sequence[float]],
    names: tuple[str, str],
    *,
    scale: float = 1,
) -> None:
    """Both axes of a drawing, with lines across at the upward one's ticks."""
    across, up = scales
    for tick in places[1]:
        drawing.line((across.start, up(tick)), (across.end, up(tick)), "grid")
        said = words.plain(scale * tick, digits_of([scale * t for t in places[1]]))
        drawing.text((across.start - 8, up(tick)), said, "small", anchor="end")
    for tick in places[0]:
        drawing.line((across(tick), up.start), (across(tick), up.start + 4), "axis")
        said = words.plain(scale * tick, digits_of([scale * t for t in places[0]]))
        drawing.text((across(tick), up.start + 16), said, "small", anchor="middle")
    drawing.line((across.start, up.start), (across.end, up.start), "axis")
    middle = (across.start + across.end) / 2
    below = 36 if places[0] else 18
    drawing.text((middle, up.start + below), names[0], "axis-name", anchor="middle")
    height = (up.start + up.end) / 2
    drawing.text((12, height), names[1], "axis-name", anchor="middle", turned=-90)


def _anchor(place: float) -> str:
    """Where a label of a vertical line begins, so that it stays within the drawing."""
    if place > 0.7 * WIDTH:
        return "end"
    return "start" if place < 0.3 * WIDTH else "middle"


def _said(value: float, axis: Axis) -> str:
    return words.plain(axis.scale * value, axis.digits, axis.sign)


def _said_interval(mark: Interval, axis: Axis) -> str:
    """As `words.interval` says it: without ends where these are not defined."""
    value, low, high = (_said(end, axis) for end in (mark.value, mark.low, mark.high))
    if math.isnan(mark.low) or math.isnan(mark.high):
        return value
    return f"{value} [{low}, {high}]"


def _said_short(marks: Sequence[Interval], axis: Axis) -> str:
    values = [axis.scale * mark.value for mark in marks]
    return " / ".join(words.plain(x, 0, axis.sign) if math.isfinite(x) else "–" for x in values)


def _describe_rows(rows: Sequence[Row], axis: Axis, kinds: Sequence[str]) -> str:
    parts = []
    for row in rows:
        for kind, mark in zip(kinds, row.marks, strict=True):
            if math.isfinite(mark.value):
                label = f"{words.printable(row.label)} {kind}".strip()
                parts.append(f"{label} {_said_interval(mark, axis)}")
    return f"{axis.label}: {'; '.join(parts[:12])}{' …' if len(parts) > 12 else ''}."


def _table_of_rows(title: str, rows: Sequence[Row], axis: Axis, kinds: Sequence[str]) -> Table:
    body: list[list[Words]] = [
        [
            words.name(row.label),
            *(
                words.interval(mark, axis.digits, scale=axis.scale, sign=axis.sign)
                for mark in row.marks
            ),
        ]
        for row in rows
    ]
    heads: list[Words] = [
        "row",
        *(f"{kind} ({axis.label})" if kind else axis.label for kind in kinds),
    ]
    return Table(title, heads, body)
