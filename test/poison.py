"""Buffers that come filled with what is noticed: what nobody writes stays as it is."""

from __future__ import annotations

import torch


def poison_new_buffers(monkeypatch) -> None:
    """`torch.empty` gives NaN, or large integers, until the test is over."""
    make = torch.empty

    def poisoned(*sizes, **options):
        buffer = make(*sizes, **options)
        return buffer.fill_(float("nan") if buffer.is_floating_point() else 2**30)

    monkeypatch.setattr(torch, "empty", poisoned)
