"""Arrays from .npz files that are not trusted: every size is checked before memory is taken, and no code is run.

`numpy.load` takes the memory that a header asks for before it knows whether the file has that much, and unpacks without
a limit.
Here a member's type, shape and size must agree with each other, with the archive's directory and with a limit.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

import numpy as np

__all__ = ["MAX_ARRAY_BYTES", "read_npz"]

MAX_ARRAY_BYTES = 1 << 29  # float64 of as many voxels as this package is made for
_BLOCK = 1 << 20
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(
    source: str | Path | BinaryIO, names: Collection[str], optional: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Arrays of an .npz file, by name.

    Args:
        source: path, or an open binary file that can seek.
        names: arrays that must be there.
        optional: arrays that are read where they are there.
    Raises:
        ValueError: not an .npz file, damaged, without one of `names`, or an array that holds Python objects, is larger
            than MAX_ARRAY_BYTES or of another size than it says. The text does not name the file.
        OSError: the file cannot be opened.
    """
    file = open(source, "rb") if isinstance(source, (str, Path)) else source
    try:
        with zipfile.ZipFile(file) as archive:
            members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            missing = [name for name in names if name not in members]
            if missing:
                raise ValueError(f"has no array {', '.join(missing)}, but {', '.join(members) or 'none'}"[:300])
            wanted = dict.fromkeys((*names, *(name for name in optional if name in members)))
            return {name: _array(archive, members[name], name) for name in wanted}
    except ValueError:
        raise
    except Exception as error:  # zip's, zlib's and NumPy's own errors: anything, on arbitrary bytes
        raise ValueError(f"is damaged or no .npz file ({type(error).__name__}: {str(error)[:200]})") from None
    finally:
        if file is not source:
            file.close()


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, name: str) -> np.ndarray:
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the others unpack without bound
        raise ValueError(f"packs {name} by method {entry.compress_type}; write it with numpy.savez_compressed")
    with archive.open(entry) as member:
        version = np.lib.format.read_magic(member)
        if version not in _HEADERS:
            raise ValueError(f"has {name} in .npy version {version}; expected 1.0 or 2.0")
        shape, by_columns, kind = _HEADERS[version](member)
        if kind.hasobject:
            raise ValueError(f"{name} holds Python objects, which can run code; write plain numbers")
        count = math.prod(shape) if all(side >= 0 for side in shape) else -1
        needed, found = count * kind.itemsize, entry.file_size - member.tell()
        if not 0 <= max(count, needed) <= MAX_ARRAY_BYTES or needed != found:
            raise ValueError(
                f"{name} ({kind}, {shape}) has {found} bytes; expected as many as its shape says, at most "
                f"{MAX_ARRAY_BYTES}"
            )
        content = bytearray()
        while block := member.read(_BLOCK):  # memory is taken for what comes, not for what was promised
            content += block
            if len(content) > needed:
                break
    if len(content) != needed:
        raise ValueError(f"{name} is cut off: {len(content)} of {needed} bytes")
    if not kind.itemsize:
        return np.empty(shape, kind)
    return np.frombuffer(content, kind).reshape(shape, order="F" if by_columns else "C")
