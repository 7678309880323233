"""The topics that config/renderocc.rviz subscribes to."""

from pathlib import Path

import yaml

__all__ = ["topics_of_rviz"]


def topics_of_rviz(path: Path) -> list[str]:
    """Topics of all displays, except optional ones for map updates."""

    def walk(part):
        if isinstance(part, list):
            for item in part:
                yield from walk(item)
        elif isinstance(part, dict):
            for key, below in part.items():
                if key == "Topic" and isinstance(below, dict):
                    yield below["Value"]
                else:
                    yield from walk(below)

    return sorted(set(walk(yaml.safe_load(path.read_text()))))
