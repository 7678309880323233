"""Path of the real recordings, for the tests that use them. They are not part of the repository."""

from pathlib import Path

import pytest

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"

needs_realdata = pytest.mark.skipif(not REALDATA.is_dir(), reason=f"real recordings are not at {REALDATA}")
