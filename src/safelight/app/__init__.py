"""App: a run as a page in the browser, served from this machine and, by default, to it alone.

    from safelight import app
    answerer = app.Answerer(Run.open("runs/cells"))
    answerer.answer("a.jpg").prediction              # without any page
    server = app.Server()                            # needs the extra `app`; takes the port
    server.serve(app.build_page(answerer))           # until Ctrl-C

Names are loaded when they are first used; Gradio and Keras with those that need them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.app.answering import Answerer as Answerer
    from safelight.app.page import build_page as build_page
    from safelight.app.server import Server as Server
    from safelight.app.training_pictures import TrainingPictures as TrainingPictures

_HOMES = {
    "Answerer": "answering",
    "Server": "server",
    "TrainingPictures": "training_pictures",
    "build_page": "page",
}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
