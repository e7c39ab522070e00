"""The page of a classifier: drop pictures on it, and read what it says of each."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from safelight.app import cards, privacy
from safelight.app.answers import Answer, Answering

if TYPE_CHECKING:
    import gradio

MOST_FILES = 32  # of one request
MAX_FILE_SIZE = 50_000_000  # bytes
_SECONDS_KEPT = 3600  # an uploaded picture
_AT_ONCE = 4  # requests that are answered in turns
_MOST_WAITING = 64  # requests
# Nothing is kept of a visitor, but Gradio keeps 16 KB of settings of each, and by default 10,000.
_MOST_SESSIONS = 2 * _MOST_WAITING


def build_page(answerer: Answering) -> gradio.Blocks:
    """The page, not yet served.

    Nothing of one visitor is kept for the next: answers go to the browser that asked, pictures are
    removed an hour later, or when the server ends.

    Args:
        answerer: Whom to ask.
    """
    privacy.close()
    import gradio

    title = cards.describe(answerer).title
    keep = (_SECONDS_KEPT // 6, _SECONDS_KEPT)
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=keep) as page:
        gradio.HTML(cards.render_head(answerer))
        files = gradio.File(
            file_count="multiple", label="Pictures", height=200, elem_classes="sl-drop"
        )
        answers = gradio.HTML(elem_classes="sl-answers")
        gradio.HTML(cards.render_notes(answerer))
        as_data = gradio.JSON(visible=False)
        gradio.on(
            [files.change],
            functools.partial(stream_cards, answerer),
            inputs=files,
            outputs=answers,
            api_visibility="private",
            trigger_mode="always_last",
            concurrency_limit=_AT_ONCE,
        )
        # Without a trigger on the page: for programs.
        gradio.Button(visible=False).click(
            functools.partial(list_answers, answerer),
            inputs=files,
            outputs=as_data,
            api_name="predict",
            concurrency_limit=_AT_ONCE,
        )
    page.queue(max_size=_MOST_WAITING)
    page.state_session_capacity = _MOST_SESSIONS
    _take_uploads_alone(page, files)
    return page


def _take_uploads_alone(page: gradio.Blocks, files: gradio.File) -> None:
    """Keeps programs from naming files of this machine, or addresses to fetch, as their pictures.

    Gradio looks at what is named once a page was launched, which one that is mounted never is.
    """
    page.has_launched = page.is_running = True
    move = files.async_move_resource_to_block_cache

    async def move_files_alone(name: str | Path | None) -> str | None:
        if name is not None and not Path(name).is_file():
            raise ValueError("a picture was named that nobody has uploaded")
        return await move(name)

    files.async_move_resource_to_block_cache = move_files_alone


def stream_cards(answerer: Answering, paths: list[str] | None) -> Iterator[str]:
    """Cards of files, one more with every step, so that the first is there soon."""
    shown = Markup("")
    yield shown
    for answer in _answer(answerer, paths):
        shown += cards.render_card(answer, answerer)
        yield shown
    if len(paths or ()) > MOST_FILES:
        yield shown + cards.render_refusal(
            f"{len(paths or ())} files: only the first {MOST_FILES} were answered. For more, "
            "`safelight transfer predict` takes whole folders."
        )


def _answer(answerer: Answering, paths: list[str] | None) -> Iterator[Answer]:
    return (answerer.answer(path) for path in (paths or [])[:MOST_FILES])


def list_answers(answerer: Answering, paths: list[str] | None) -> list[dict[str, Any]]:
    """Answers for programs, one for each file: those beyond the most of a request are errors."""
    beyond = (paths or [])[MOST_FILES:]
    refused = f"only the first {MOST_FILES} files of a request are answered, send the rest anew"
    return [
        *(to_dict(answer, answerer) for answer in _answer(answerer, paths)),
        *({"file": Path(path).name, "error": refused} for path in beyond),
    ]


def to_dict(answer: Answer, answerer: Answering) -> dict[str, Any]:
    """An answer for programs, as `transfer predict --json` gives it."""
    if answer.error:
        return {"file": answer.file, "error": answer.error}
    best = answerer.class_names[int(answer.probabilities.argmax())]
    return {
        "file": answer.file,
        "prediction": None if answer.refused else best,
        "probabilities": dict(
            zip(answerer.class_names, answer.probabilities.tolist(), strict=True)
        ),
        "familiarity": answer.familiarity,
        "refused": answer.refused,
        "nearest": [
            {"file": near.picture.file, "label": near.picture.label, "distance": near.distance}
            for near in answer.nearest
        ],
    }
