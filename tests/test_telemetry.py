"""Nobody is told of a conversion: run where OpenVINO is installed (`make test-backends`)."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed"
)


@pytest.mark.parametrize("before", ["", "import openvino"], ids=["first", "loaded before"])
def test_openvino_is_loaded_without_what_reports(before):
    program = f"""
        {before}
        from safelight.telemetry import import_openvino

        openvino = import_openvino()
        from openvino.tools.ovc import convert_impl, telemetry_utils

        for module in (convert_impl, telemetry_utils):
            assert module.tm.__name__.endswith("telemetry_stub"), module.tm
        telemetry = telemetry_utils.init_ovc_telemetry()
        assert type(telemetry).__module__.endswith("telemetry_stub")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
