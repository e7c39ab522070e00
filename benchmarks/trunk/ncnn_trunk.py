"""ncnn by Safelight's engine; its options are changed from outside, before the network is read."""

from __future__ import annotations

from typing import TYPE_CHECKING
from unittest import mock

import ncnn

from safelight.transfer import engines
from trunk.keras_trunk import build_model

if TYPE_CHECKING:
    from trunk.child import Assignment, Run


def build(assignment: Assignment) -> tuple[Run, dict[str, object]]:
    """The engine, in float32 as the product builds it, under the variant's options."""
    options = assignment.variant.options
    plain = ncnn.Net

    def make_net() -> ncnn.Net:
        net = plain()
        for name, value in options.items():
            setattr(net.opt, name, value)
        return net

    model = build_model(assignment.protocol.image_size, "float32")
    with mock.patch.object(ncnn, "Net", make_net):
        run = engines.build_engine("ncnn", model, precision="float32")
    return run, {"options": options}
