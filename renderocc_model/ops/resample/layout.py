"""How the bytes of a camera's picture lie in memory."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PLANAR", "PixelLayout"]

PLANAR = "planar_rgb8"  # (3, height, width): what JPEG decoders on devices write


@dataclass(frozen=True)
class PixelLayout:
    """How bytes are a camera's picture.

    Args:
        height, width: of the camera's picture, pixels.
        encoding: one of `images.encodings.ENCODINGS`, or `PLANAR`.
        step: bytes from one row to the next.
        is_bigendian: byte order of mono16.
        rows: (first, last + 1) of the rows that are there, even numbers; the chroma of nv12 follows its luma. All rows
            if it is not given.
    """

    height: int
    width: int
    encoding: str
    step: int
    is_bigendian: bool = False
    rows: tuple[int, int] | None = None

    @property
    def first_row(self) -> int:
        return self.rows[0] if self.rows else 0

    @property
    def row_count(self) -> int:
        return self.rows[1] - self.rows[0] if self.rows else self.height

    @property
    def size(self) -> int:
        """Bytes."""
        halves = {PLANAR: 6, "nv12": 3}.get(self.encoding, 2)
        return self.step * self.row_count * halves // 2
