"""`import renderocc_model` is light, and every name it offers is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import renderocc_model

pytestmark = pytest.mark.slow


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, renderocc_model, renderocc_model.network.presets; "
        "print({'torch', 'timm', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", renderocc_model.__all__)
def test_every_offered_name_is_there(name):
    assert getattr(renderocc_model, name) is not None
    assert name in dir(renderocc_model)


def test_an_editor_sees_the_same_names_as_the_interpreter():
    stub = Path(renderocc_model.__file__).with_suffix(".pyi").read_text()
    names = {}
    exec(stub, {"__package__": "renderocc_model", "__name__": "renderocc_model"}, names)  # each import must succeed
    assert {name: names[name] for name in renderocc_model.__all__} == {
        name: getattr(renderocc_model, name) for name in renderocc_model.__all__
    }
    assert set(names) - {"__doc__"} == set(renderocc_model.__all__)


def test_a_name_that_is_not_offered_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Predicotr'"):
        renderocc_model.Predicotr
