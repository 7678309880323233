"""Labels and 3D truth of a recording: there, of the right size and stamps, and with ids of the class table."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renderocc_model.classes import UNLABELLED, ClassTable
from renderocc_model.findings import Findings
from renderocc_model.grid import OCC3D_GRID, SEMANTIC_KITTI_GRID
from renderocc_model.messages import cdr
from renderocc_model.messages.bags import Bag
from training.label_images import depth_image, semantic_image

from .topics import Contents

__all__ = ["LabelReport", "check_labels", "check_truth"]

_KINDS = ("semantic", "depth")
_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_RARE = 1e-5  # share of pixels below which a class will hardly be learned
_GRIDS = {grid.shape for grid in (OCC3D_GRID, SEMANTIC_KITTI_GRID)}
_NAMED = 3  # faults of one kind that are named with their time


@dataclass
class LabelReport:
    """What labels there are.

    Attributes:
        images: {camera: images that have both a semantic and a depth label}.
        coverage: {camera: mean share of pixels with a class and a depth, of the labels looked at}.
        frequencies: (256,) pixels of each id, of the labels looked at.
    """

    images: dict[str, int] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    frequencies: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))


@dataclass(frozen=True)
class _Topic:
    bag: Bag
    name: str
    compressed: bool


def check_labels(
    findings: Findings, contents: Contents, bags: list[Bag], classes: ClassTable, samples: int
) -> LabelReport:
    """Look at the labels of every camera.

    Args:
        findings: gets what is wrong.
        contents: of the recording.
        bags: where labels may be, the sidecar first.
        classes: table of the ids.
        samples: label images of each camera and kind that are decoded, spread over the recording; 0 for all.
    """
    report = LabelReport()
    where = bags[0].path
    for name, camera in contents.cameras.items():
        if camera.model is None:
            continue
        topics = {kind: _find(bags, f"/{name}/{kind}") for kind in _KINDS}
        missing = [kind for kind in _KINDS if topics[kind] is None]
        if missing:
            lacking = " and ".join(f"/{name}/{kind}" for kind in missing)
            findings.warn(f"labels '{name}'", f"{where} has no {lacking}", "make them with `renderocc label`")
            continue
        stamps = {kind: _stamps(findings, contents, name, topic) for kind, topic in topics.items()}
        images = set(camera.stamps)
        for kind, found in stamps.items():
            strays = sorted(set(found) - images)
            if strays:
                findings.warn(
                    f"labels '{name}'", f"{len(strays)} of {len(found)} labels match no image",
                    "write labels at the images' stamps",
                    topics[kind].name, contents.time_text(strays[0]),
                )  # fmt: skip
        both = sorted(images & set(stamps["semantic"]) & set(stamps["depth"]))
        report.images[name] = len(both)
        chosen = (
            both
            if not samples or len(both) <= samples
            else [both[i] for i in np.linspace(0, len(both) - 1, samples).astype(int)]
        )
        share = _decode(
            findings,
            contents,
            name,
            topics,
            {kind: {s: stamps[kind][s] for s in chosen} for kind in _KINDS},
            classes,
            report,
        )
        report.coverage[name] = share
        text = f"{len(both)} of {len(images)} images have labels, {100 * share:.2f}% of their pixels"
        (findings.ok if both else findings.warn)(f"labels '{name}'", text)
    _conclude(findings, where, report, classes)
    return report


def _find(bags: list[Bag], name: str) -> _Topic | None:
    for bag in bags:
        for topic, kind in ((f"{name}/compressed", _COMPRESSED), (name, _IMAGE)):
            if topic in bag.topics and bag.topics[topic].type == kind and bag.topics[topic].count:
                return _Topic(bag, topic, kind == _COMPRESSED)
    return None


def _stamps(findings: Findings, contents: Contents, camera: str, topic: _Topic) -> dict[int, int]:
    """{header stamp: record time} of a label topic."""
    found: dict[int, int] = {}
    for _, recorded_ns, data in topic.bag.messages([topic.name]):
        try:
            found.setdefault(cdr.read_header(data)[0], recorded_ns)
        except ValueError as error:
            findings.fail(
                f"labels '{camera}'", str(error), "make the labels again", topic.name, contents.time_text(recorded_ns)
            )
            break
    return found


def _decode(
    findings: Findings,
    contents: Contents,
    camera: str,
    topics: dict[str, _Topic],
    chosen: dict[str, dict[int, int]],
    classes: ClassTable,
    report: LabelReport,
) -> float:
    """Decode the chosen labels; the share of pixels with both a class and a depth."""
    model = contents.cameras[camera].model
    shape, shares = (model.height, model.width), []
    faults: dict[str, int] = {}
    for stamp in sorted(chosen["semantic"]):
        images = {}
        for kind, decode in zip(_KINDS, (semantic_image, depth_image)):
            try:
                message = _message(topics[kind], chosen[kind][stamp], stamp)
                images[kind] = decode(message, *shape)
                if kind == "semantic":
                    _check_ids(images[kind], classes)
            except ValueError as error:
                faults[kind] = faults.get(kind, 0) + 1
                if faults[kind] <= _NAMED:
                    findings.fail(
                        f"labels '{camera}'",
                        str(error),
                        "make the labels again",
                        topics[kind].name,
                        contents.time_text(stamp),
                    )
        if "semantic" in images:
            report.frequencies += np.bincount(images["semantic"].ravel(), minlength=256)
        if len(images) == 2:
            usable = (images["semantic"] != UNLABELLED) & (images["semantic"] != classes.free) & (images["depth"] > 0)
            shares.append(float(usable.mean()))
    for kind, count in faults.items():
        if count > _NAMED:
            findings.fail(f"labels '{camera}'", f"and {count - _NAMED} more labels like these", "", topics[kind].name)
    return float(np.mean(shares)) if shares else 0.0


def _message(topic: _Topic, recorded_ns: int, stamp_ns: int):
    for _, _, data in topic.bag.messages([topic.name], recorded_ns, recorded_ns + 1):
        if cdr.read_header(data)[0] == stamp_ns:
            return cdr.read_compressed_image(data) if topic.compressed else cdr.read_image(data)
    raise ValueError("the message was there and is gone")


def _check_ids(image: np.ndarray, classes: ClassTable) -> None:
    outside = np.unique(image[(image >= len(classes)) & (image != UNLABELLED)])
    if outside.size:
        ids = ", ".join(map(str, outside[:8]))
        raise ValueError(f"class ids {ids} are not in the table of {len(classes)} classes (255 is unlabelled)")


def _conclude(findings: Findings, where: Path, report: LabelReport, classes: ClassTable) -> None:
    if not any(report.images.values()):
        findings.fail(
            "labels", f"no image has both a semantic and a depth label in {where}",
            "make them with `renderocc label`, and name the sidecar with --labels",
        )  # fmt: skip
        return
    if not any(report.coverage.values()):
        findings.fail(
            "labels",
            f"no pixel of the labels in {where} has both a class and a depth",
            "look at them: renderocc label --preview",
        )
    total = report.frequencies[: len(classes)].sum()
    if not total:
        return
    share = report.frequencies[: len(classes)] / total
    shown = sorted((index for index in classes.occupied_ids if share[index]), key=lambda index: -share[index])
    findings.ok("classes", ", ".join(f"{classes.names[index]} {100 * share[index]:.2f}%" for index in shown))
    absent = [classes.names[index] for index in classes.occupied_ids if share[index] < _RARE]
    if absent:
        findings.warn(
            "classes", f"hardly or never seen: {', '.join(absent)}", "these will not be learned from this recording"
        )


def check_truth(findings: Findings, contents: Contents, bag: Path, classes: ClassTable, max_time_diff: float) -> int:
    """3D truth files beside the messages; their number.

    Args:
        max_time_diff: seconds from a file's stamp to the images of its frame.
    """
    folder = (bag if bag.is_dir() else bag.parent) / "occupancy"
    files = sorted(folder.glob("*.npz"))
    shapes: dict[tuple, Path] = {}
    starts = {name: sorted(camera.stamps) for name, camera in contents.cameras.items() if camera.stamps}
    for file in files:
        if not file.stem.isdecimal():
            findings.warn("truth", f"{file}: its name is no stamp in nanoseconds", "it is not used; rename it")
            continue
        stamp = int(file.stem)
        try:
            shapes.setdefault(_check_volume(file, classes), file)
        except ValueError as error:
            findings.fail("truth", f"{file}: {error}", "write it again, or remove it", time=contents.time_text(stamp))
            continue
        near = [
            name for name, stamps in starts.items() if np.abs(np.array(stamps) - stamp).min() <= max_time_diff * 1e9
        ]
        if not near:
            text = f"{file}: no camera has an image within {max_time_diff:g} s"
            findings.warn("truth", text, "this frame will have no images", time=contents.time_text(stamp))
    if len(shapes) > 1:
        named = "; ".join(f"{shape} in {file.name}" for shape, file in shapes.items())
        findings.fail("truth", f"volumes of different shapes: {named}", "keep those of one grid")
    for shape, file in shapes.items():
        if shape not in _GRIDS:
            findings.warn("truth", f"{file}: volumes are {shape}", "train with a grid of this shape")
    if shapes:
        findings.ok("truth", f"{len(files)} volumes of {next(iter(shapes))}")
    return len(files)


def _check_volume(file: Path, classes: ClassTable) -> tuple[int, ...]:
    """The shape of a truth file in Occ3D's layout. ValueError says what is wrong with it."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in ("semantics", "mask_camera", "mask_lidar") if key in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"cannot be read ({' '.join(str(error).split())[:120]})") from None
    for key in ("semantics", "mask_camera"):
        if key not in arrays:
            raise ValueError(f"has no '{key}'; it holds {', '.join(arrays) or 'nothing of Occ3D'}")
    semantics = arrays["semantics"]
    if semantics.ndim != 3 or semantics.dtype != np.uint8:
        raise ValueError(f"semantics is {semantics.dtype} {semantics.shape}; expected uint8 (X, Y, Z)")
    for key, array in arrays.items():
        if array.shape != semantics.shape:
            raise ValueError(f"{key} is {array.shape} but semantics is {semantics.shape}")
    _check_ids(semantics, classes)
    return semantics.shape
