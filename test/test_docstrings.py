"""The examples in docstrings print what they say."""

import doctest
import importlib

import numpy as np
import pytest

# Modules whose public functions people call; each has at least one example.
MODULES = (
    "renderocc_model",
    "renderocc_model.base.config",
    "renderocc_model.base.machine_errors",
    "renderocc_model.base.plain_yaml",
    "renderocc_model.export.archive",
    "renderocc_model.field.classes",
    "renderocc_model.field.field",
    "renderocc_model.geometry.grid",
    "renderocc_model.geometry.rays",
    "renderocc_model.geometry.transforms",
    "renderocc_model.network.presets",
    "renderocc_model.ops.render.surfaces",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name):
    module = importlib.import_module(name)
    with np.printoptions(legacy=False):
        done = doctest.testmod(module)
    assert done.attempted and not done.failed
