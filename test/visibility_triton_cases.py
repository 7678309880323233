"""Visibility by Triton against the PyTorch reference. Run by `test_visibility_kernels`, in a process of its own: Triton
decides when it is imported whether its kernels are interpreted, as they are without a GPU."""

from __future__ import annotations

import os

import pytest
import torch
from test_visibility_kernels import CASES, case, check_against_reference, layers_of

from renderocc_model.ops.visibility import cast, triton_kernel

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.mark.parametrize("name", CASES)
def test_triton_sees_what_the_reference_sees(name, monkeypatch):
    density, frusta = case(name)
    monkeypatch.setattr(triton_kernel, "_RAYS", 1024 if DEVICE == "cpu" else triton_kernel._RAYS)
    monkeypatch.setattr(triton_kernel, "_BLOCK", 8192 if DEVICE == "cpu" else triton_kernel._BLOCK)
    check_against_reference(name, cast(density.to(DEVICE), frusta, "triton", layers_of(name)))


@pytest.mark.parametrize("name", CASES)
def test_every_ray_gets_a_length(name, monkeypatch):
    density, frusta = case(name)
    monkeypatch.setattr(triton_kernel, "_RAYS", 1024 if DEVICE == "cpu" else triton_kernel._RAYS)
    frusta = frusta.to(torch.device(DEVICE))
    distances = torch.full((len(frusta.directions),), float("nan"), device=DEVICE)
    triton_kernel.cast_rays(density.to(DEVICE), frusta, distances, layers_of(name))
    assert not distances.isnan().any()
