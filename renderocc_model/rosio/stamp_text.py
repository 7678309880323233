"""Stamps as text."""

from __future__ import annotations

__all__ = ["seconds_text"]


def seconds_text(stamp_ns: int) -> str:
    """A stamp as text in seconds with milliseconds, without rounding errors of floating point."""
    return f"{stamp_ns // 10**9}.{stamp_ns % 10**9 // 10**6:03d}"
