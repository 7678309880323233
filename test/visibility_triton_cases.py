"""Visibility by Triton against the PyTorch reference. Run by `test_visibility_loops`, in a process of its own: Triton
decides when it is imported whether its kernels are interpreted, as they are without a GPU."""

from __future__ import annotations

import os

import pytest
import torch
from test_visibility_loops import CASES, case, disagreement

from renderocc_model.ops.visibility import triton_launch
from renderocc_model.ops.visibility.cameras import BIAS, NEAREST, STEP

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.mark.parametrize("name", CASES)
def test_triton_sees_what_the_reference_sees(name, monkeypatch):
    density, lookout, poses, expected = case(name, DEVICE)
    monkeypatch.setattr(triton_launch, "_RAYS", 1024 if DEVICE == "cpu" else triton_launch._RAYS)
    monkeypatch.setattr(triton_launch, "_BLOCK", 8192 if DEVICE == "cpu" else triton_launch._BLOCK)
    sight = lookout.sight(poses).to(torch.device(DEVICE))
    distances = torch.full((len(sight.directions),), float("nan"), device=DEVICE)
    visible = torch.ones(density.shape, dtype=torch.bool, device=DEVICE)
    triton_launch.march(density.to(DEVICE), sight, distances, lookout.limit, STEP)
    assert not distances.isnan().any()
    triton_launch.look(sight, distances, visible, BIAS, NEAREST)
    assert disagreement(visible.cpu(), expected) < 0.001
