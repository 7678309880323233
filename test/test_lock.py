"""The lock files: every requirement is in them, in a version that it allows, as an exact one with hashes."""

import re
from pathlib import Path

import make_environment
import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements-lock.txt", "requirements-lock-ros.txt")
LOCKED_FOR = {**default_environment(), "sys_platform": "linux", "python_version": "3.11", "platform_machine": "x86_64"}


def locked(name: str) -> dict[str, Version]:
    """{package: its version} of a lock file; fails where a package has no exact version or no hash."""
    entries = re.split(r"\n(?=[a-z])", re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.M))
    versions = {}
    for entry in entries:
        match = re.fullmatch(r"([a-z0-9.-]+)==(\S+)( ;[^\\]*)? \\(\n    --hash=sha256:[0-9a-f]{64}( \\)?)+\n?", entry)
        assert match, f"{name}: not an exact version with hashes: {entry[:100]!r}"
        versions[match[1]] = Version(match[2])
    return versions


@pytest.mark.parametrize("name", ["", "-train", "-export", "-test"])
def test_the_lock_holds_what_is_required_in_a_version_that_is_allowed(name):
    versions = locked("requirements-lock.txt")
    lines = (ROOT / f"requirements{name}.txt").read_text().splitlines()
    for line in filter(None, (line.partition("#")[0].strip() for line in lines)):
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(LOCKED_FOR):
            found = versions[canonicalize_name(wanted.name)]
            assert found in wanted.specifier, f"{line}: {found} is locked; run `make lock`"


def test_the_ros_lock_holds_what_the_environment_is_made_of():
    versions = locked("requirements-lock-ros.txt")
    for line in [
        *make_environment.ROS_PACKAGES,
        *make_environment.GENERATOR_PACKAGES,
        *make_environment.GENERATOR_PINS,
    ]:
        wanted = Requirement(line)
        assert versions[canonicalize_name(wanted.name)] in wanted.specifier, f"{line}; run `make lock`"


def test_both_locks_can_be_installed_together():
    one, other = map(locked, LOCKS)
    assert {name: (one[name], other[name]) for name in one.keys() & other if one[name] != other[name]} == {}
