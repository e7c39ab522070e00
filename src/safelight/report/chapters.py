"""A chapter on one run, whatever its kind: its answer, its sections, and what closes every page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from safelight.report import words
from safelight.report.blocks import Answer, Block, Chapter, answer_or_damage, sections
from safelight.report.provenance import tell_command, tell_environment
from safelight.report.reading import Reading

Teller = Callable[[Reading], Sequence[Block]]
"""Makes the blocks of a section out of a run; none where it has nothing to say."""

_ALWAYS: Mapping[str, Teller] = {"Environment": tell_environment, "Make it again": tell_command}
_SUBTITLE = Markup("Run {}")


def make_chapter(
    reading: Reading,
    *,
    title: Markup,
    answer: Callable[[Reading], Answer],
    tellers: Mapping[str, Teller],
    always: Mapping[str, Teller] = _ALWAYS,
    subtitle: Markup = _SUBTITLE,
) -> Chapter:
    """All about one run; where a file of it is damaged, a sentence takes the place of a section.

    Args:
        reading: The run.
        title: With `{}` where the name of the data set belongs.
        answer: What is read first.
        tellers: The sections by their titles, for a run that has numbers.
        always: Those after them, which a run without numbers has too.
        subtitle: With `{}` where the name of the run belongs.
    """
    wanted = {**tellers, **always} if reading.metrics else always
    makers = {name: functools.partial(tell, reading) for name, tell in wanted.items()}
    return Chapter(
        title=title.format(words.name(reading.dataset)),
        subtitle=subtitle.format(words.name(reading.name)),
        answer=answer_or_damage(lambda: answer(reading)),
        sections=sections(makers),
        problems=reading.problems,
    )


def named(label: str, meaning: str) -> Markup:
    """The name of a number in a table, and below it what the number means."""
    return Markup('{}<span class="meaning">{}</span>').format(label, meaning)
