"""A fixture for tests that change the number of PyTorch's threads."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
