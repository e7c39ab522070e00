"""Numbers and names as a page says them.

Every number from a run stands in a `<data>` element beside its unrounded value, so that a program
can check what a person reads. Plain strings are escaped when they are put into markup.
"""

from __future__ import annotations

import math

from markupsafe import Markup, escape

from safelight import untrusted
from safelight.metrics import Interval

printable = untrusted.printable


def name(text: object) -> Markup:
    """A name of a class, file or run, kept apart from the direction of the text around it.

    A line may end after a slash, so that long names of files fit a phone.
    """
    return Markup("<bdi>{}</bdi>").format(escape(printable(text)).replace("/", Markup("/<wbr>")))


def shorten(text: object, width: int) -> str:
    """A printable name whose middle is left out where it is longer than `width` letters."""
    plain = printable(text)
    if len(plain) <= width:
        return plain
    head = (width - 1) * 2 // 3
    return f"{plain[:head]}…{plain[len(plain) - (width - 1 - head) :]}"


def number(value: float | None, digits: int = 3, *, scale: float = 1, sign: bool = False) -> Markup:
    """A number with so many digits after the point, and the value it was rounded from.

    Args:
        value: As in the run's files; None is said "not defined".
        digits: Shown after the point.
        scale: Shown is `scale * value`: 100 for per cent.
        sign: Whether a plus is shown.
    """
    if value is None or not math.isfinite(value):
        return Markup("not defined")
    return Markup('<data value="{}">{}</data>').format(value, plain(scale * value, digits, sign))


def plain(value: float, digits: int, sign: bool = False) -> str:
    """A number as text, with the minus of a printed text; zero has no sign."""
    text = f"{value:{'+' if sign else ''},.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def count(value: float) -> Markup:
    """A whole number: `2,624`."""
    return number(value, 0)


def percent(value: float | None, digits: int = 1) -> Markup:
    """A share as `87.8 %`."""
    return Markup("{}&nbsp;%").format(number(value, digits, scale=100))


def interval(
    found: Interval, digits: int = 3, *, scale: float = 1, unit: str = "", sign: bool = False
) -> Markup:
    """A number, its unit, and its interval in brackets.

    Args:
        found: The value and both ends.
        digits: Shown after the point.
        scale: As for `number`.
        unit: Behind the value.
        sign: Whether a plus is shown.
    """
    if math.isnan(found.value):
        reason = f" ({printable(found.reason)})" if found.reason else ""
        return Markup("not defined{}").format(reason)
    value, low, high = (
        number(x, digits, scale=scale, sign=sign) for x in (found.value, found.low, found.high)
    )
    space = Markup("&nbsp;") if unit else ""
    if math.isnan(found.low) or math.isnan(found.high):
        return value + space + unit
    return Markup('{}{}{} <span class="ends">[{}, {}]</span>').format(value, space, unit, low, high)


def ends(
    found: Interval, digits: int = 1, *, scale: float = 1, unit: str = "", sign: bool = False
) -> Markup:
    """An interval alone, in words; nothing where it is not defined."""
    if math.isnan(found.low) or math.isnan(found.high):
        return Markup("")
    low, high = (number(x, digits, scale=scale, sign=sign) for x in (found.low, found.high))
    return Markup("95 % interval {} to {}{}").format(low, high, unit)


def percent_interval(found: Interval, digits: int = 1) -> Markup:
    """A share as `87.8 % [85.1, 90.1]`."""
    return interval(found, digits, scale=100, unit="%")


def points(found: Interval) -> Markup:
    """A difference of shares as `+2.1 points [+0.4, +3.9]`."""
    return interval(found, 1, scale=100, unit="points", sign=True)


def nats(found: Interval, digits: int = 1, *, sign: bool = False) -> Markup:
    """A log-probability as `−98.2 nats [−98.9, −97.5]`."""
    return interval(found, digits, unit="nats", sign=sign)


def plural(value: float, one: str, many: str = "") -> Markup:
    """`1 picture`, `2 pictures`."""
    return Markup("{} {}").format(count(value), one if value == 1 else many or f"{one}s")


def one_in(rate: float) -> str:
    """A rate of errors as people say it: `1 in 8`; several of them where it is high."""
    if rate <= 0:
        return "none"
    if rate > 11 / 30:  # nearer to 4 in 10 than to 1 in 3
        return f"{round(10 * rate)} in 10"
    return f"1 in {round(1 / rate):,}"


def join(parts: list[Markup | str], separator: str = ", ") -> Markup:
    """Parts in a row, each escaped unless it is markup."""
    return escape(separator).join(parts)


def sentences(*parts: Markup | str) -> Markup:
    """What is not empty, one after another."""
    return join([part for part in parts if part], " ")
