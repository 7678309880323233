"""Fills new buffers with conspicuous values, so that tests notice elements that a kernel does not write."""

from __future__ import annotations

import torch


def poison_new_buffers(monkeypatch) -> None:
    """Until the test is over, `torch.empty` gives NaN or large integers."""
    make = torch.empty

    def poisoned(*sizes, **options):
        buffer = make(*sizes, **options)
        return buffer.fill_(float("nan") if buffer.is_floating_point() else 2**30)

    monkeypatch.setattr(torch, "empty", poisoned)
