"""Checks whether `renderocc label` finds depth in a recording that has no labels yet."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from renderocc_model.base.findings import Findings
from renderocc_model.rosio.bags import Bag
from training.recordings.lidar_topics import CLOUD_TYPES, other_lidars

from .contents import Contents

__all__ = ["check_labelling"]

_NEAR_S = 0.1  # largest time between an image and its cloud, as in `renderocc label`
_MOST = 0.5  # share of images without a cloud from which it is worth a warning


def check_labelling(findings: Findings, contents: Contents, bag: Bag, chosen: Sequence[str] = ()) -> None:
    """Check that there is one LiDAR, that its clouds have points, and that they are near the images in time."""
    clouds = contents.clouds
    unreadable = [topic.name for topic in bag.topics.values() if topic.type in CLOUD_TYPES and topic.count]
    if not clouds and unreadable:
        text = "not one of its clouds can be read"
        findings.fail("labelling", text, "look at the messages that are named above", unreadable[0])
        return
    if not clouds:
        others = other_lidars(bag)
        text = "there is no PointCloud2 topic, which `renderocc label` takes depth from"
        if others:
            findings.fail("labelling", f"{text}; {others}")
        else:
            findings.warn(
                "labelling", text, "name depth images with --depth-topic, use --depth-from motion, or record the LiDAR"
            )
        return
    if len(clouds) > 1 and not chosen:
        remedy = f"choose one or more: renderocc label --lidar {next(iter(clouds))}"
        findings.warn("labelling", f"there are {len(clouds)} PointCloud2 topics: {', '.join(clouds)}", remedy)
    for topic, (_, stamps) in clouds.items():
        if not contents.cloud_points.get(topic):
            findings.fail(f"cloud {topic}", f"all {len(stamps)} clouds are empty", "they label nothing", topic)
        else:
            _check_times(findings, contents, topic, np.sort(np.array(stamps, np.int64)))


def _apart(images: np.ndarray, clouds: np.ndarray) -> np.ndarray:
    """Seconds from each image to its nearest cloud; `clouds` ascend."""
    place = np.clip(np.searchsorted(clouds, images), 1, max(len(clouds) - 1, 1))
    around = np.stack([clouds[place - 1], clouds[np.minimum(place, len(clouds) - 1)]])
    return np.abs(around - images).min(axis=0) / 1e9


def _check_times(findings: Findings, contents: Contents, topic: str, clouds: np.ndarray) -> None:
    """Check that images have clouds near them. Cameras whose images have none are one fault: that of a clock."""
    lonely, all_far, first = [], True, 0
    for name, camera in contents.cameras.items():
        images = np.array(camera.stamps, np.int64)
        if not len(images):
            continue
        apart = _apart(images, clouds)
        far = apart > _NEAR_S
        all_far &= bool(far.all())
        if far.mean() > _MOST:
            first = first or int(images[far][0])
            lonely.append(
                f"{int(far.sum())} of {len(images)} images of '{name}' have no cloud within {_NEAR_S:g} s; the nearest "
                f"is {np.median(apart[far]):.3f} s away in the median"
            )
    if lonely:
        report = findings.fail if all_far else findings.warn
        remedy = "do camera and LiDAR have the same clock? or set renderocc label --max-time-diff"
        report(f"cloud {topic}", "; ".join(lonely), remedy, topic, contents.time_text(first))
