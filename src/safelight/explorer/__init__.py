"""Explorer: the latent space of an autoencoder or a GAN as a page to walk in, without a server.

    from safelight import explorer
    explorer.export_web("runs/digits", "pages/digits")    # then: python -m http.server
    explorer.show("pages/digits")                         # in a cell of a notebook

The decoder runs in the browser, so what the page shows is computed there, for any latents.
Names are loaded when they are first used, and Keras with them.
"""

from typing import TYPE_CHECKING

from safelight.lazy import on_demand

if TYPE_CHECKING:
    from safelight.explorer.export import export_web as export_web
    from safelight.explorer.notebook import show as show
    from safelight.explorer.onnx_graph import decoder_graph as decoder_graph

_HOMES = {"decoder_graph": "onnx_graph", "export_web": "export", "show": "notebook"}
__all__ = list(_HOMES)
__getattr__, __dir__ = on_demand(__name__, _HOMES)
