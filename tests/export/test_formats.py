from typing import get_args

import pytest

from safelight.export import formats


def test_what_cannot_be_written_is_a_sentence(monkeypatch):
    with pytest.raises(
        ValueError, match="format 'tflite': expected one of onnx, onnx-int8, saved_"
    ):
        formats.check_format("tflite", "tensorflow")
    with pytest.raises(
        ValueError, match=r"by Keras on torch, and this is tensorflow.*BACKEND=torch"
    ):
        formats.check_format("torch", "tensorflow")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r'tf2onnx and onnxruntime: `pip install "safelight\[onnx'):
        formats.check_format("onnx", "tensorflow")


def test_a_table_row_is_known_by_its_key():
    assert all(row.name == name for name, row in formats.FORMATS.items())
    assert get_args(formats.Name) == tuple(formats.FORMATS)
