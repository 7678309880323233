"""For tests that change how many threads PyTorch has."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
