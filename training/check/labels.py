"""Checks labels and 3D truth: whether they exist, their sizes and stamps, and their class ids."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from renderocc_model.base.findings import Faults, Findings
from renderocc_model.field.classes import UNLABELLED, ClassTable
from renderocc_model.field.truth import check_ids, check_truth_file, truth_files, truth_folder
from renderocc_model.geometry.grid import OCC3D_GRID, SEMANTIC_KITTI_GRID
from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Bag
from training.recordings.label_images import depth_image, semantic_image
from training.recordings.sources import find_source
from training.recordings.spread import evenly_spread
from training.recordings.stamped_topic import StampedTopic, TopicError

from .contents import Contents

__all__ = ["LabelReport", "check_labels", "check_truth"]

_DECODERS = {"semantic": semantic_image, "depth": depth_image}
_RARE = 1e-5  # share of pixels; classes that are rarer can hardly be learned
_GRIDS = {grid.shape for grid in (OCC3D_GRID, SEMANTIC_KITTI_GRID)}


@dataclass
class LabelReport:
    """Counts of labels.

    Attributes:
        images: {camera: number of images that have a depth label}.
        coverage: {camera: mean share of pixels with a depth, in the labels that were decoded}.
        classified: {camera: share of these pixels that also have a class}.
        frequencies: (256,) pixels of each id, in the labels that were decoded.
        class_topics: whether there are topics of class labels.
    """

    images: dict[str, int] = field(default_factory=dict)
    coverage: dict[str, float] = field(default_factory=dict)
    classified: dict[str, float] = field(default_factory=dict)
    frequencies: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    class_topics: bool = False


def check_labels(
    findings: Findings, contents: Contents, bags: list[Bag], classes: ClassTable, samples: int
) -> LabelReport:
    """Check the labels of every camera.

    Args:
        findings: gets the faults.
        contents: contents of the recording.
        bags: bags that may have labels, the sidecar first.
        classes: the class table.
        samples: number of label images to decode of each camera and kind, spread evenly; 0 decodes all.
    """
    report = LabelReport()
    where = bags[0].path
    for name, camera in contents.cameras.items():
        if camera.model is None:
            continue
        topics = {kind: _open(findings, bags, name, kind, camera.offset_ns) for kind in _DECODERS}
        report.class_topics |= topics["semantic"] is not None
        if topics["depth"] is None:
            findings.warn(f"labels '{name}'", f"{where} has no /{name}/depth", "make it with `renderocc label`")
            continue
        images = set(camera.stamps)
        for topic in filter(None, topics.values()):
            strays = [stamp for stamp in topic.stamps if stamp not in images]
            if strays:
                findings.warn(
                    f"labels '{name}'",
                    f"{len(strays)} of {len(topic.stamps)} labels match no image",
                    "write labels with the images' stamps",
                    topic.topic,
                    contents.time_text(strays[0]),
                )
        labelled = [stamp for stamp in topics["depth"].stamps if stamp in images]
        report.images[name] = len(labelled)
        _decode(findings, contents, name, topics, evenly_spread(labelled, samples), classes, report)
        text = f"{len(labelled)} of {len(images)} images have depth labels, on {report.coverage[name]:.2%} of their "
        text += f"pixels, and {report.classified[name]:.1%} of these have a class"
        (findings.ok if report.coverage[name] else findings.warn)(f"labels '{name}'", text)
    _conclude(findings, where, report, classes)
    return report


def _open(findings: Findings, bags: list[Bag], camera: str, kind: str, offset_ns: int) -> StampedTopic | None:
    """The topic of a camera's labels of a kind; None if there is none, or it cannot be read."""
    source = find_source(bags, f"/{camera}/{kind}")
    if source is None:
        return None
    try:
        return StampedTopic(source.bag, source.topic, offset_ns=offset_ns)
    except TopicError as error:
        findings.fail(f"labels '{camera}'", str(error), "make the labels again")
        return None


def _decode(
    findings: Findings,
    contents: Contents,
    camera: str,
    topics: dict[str, StampedTopic | None],
    stamps: list[int],
    classes: ClassTable,
    report: LabelReport,
) -> None:
    """Decode a camera's labels at some stamps and count their pixels."""
    model = contents.cameras[camera].model
    assert model is not None  # cameras without one have no labels that could be checked
    faults = Faults()
    pixels, known, classified = 0, 0, 0
    for stamp in stamps:
        images = {}
        for kind, topic in topics.items():
            if topic is None or stamp not in topic:
                continue
            try:
                images[kind] = _DECODERS[kind](_message(topic, stamp), model.height, model.width)
                if kind == "semantic":
                    check_ids(images[kind], classes)
            except ValueError as error:
                faults.add(topic.topic, str(error), contents.time_text(stamp))
        if "depth" not in images:
            continue
        depth = images["depth"] > 0
        semantic = images.get("semantic", np.full(depth.shape, UNLABELLED, np.uint8))
        report.frequencies += np.bincount(semantic.ravel(), minlength=256)
        depth &= semantic != classes.free
        pixels, known = pixels + depth.size, known + int(depth.sum())
        classified += int((depth & (semantic != UNLABELLED)).sum())
    report.coverage[camera], report.classified[camera] = known / max(pixels, 1), classified / max(known, 1)
    for (name, _), fault in faults.kinds.items():
        text = fault.with_count("label")
        findings.fail(f"labels '{camera}'", text, "make the labels again", name, fault.where)


def _message(topic: StampedTopic, stamp: int) -> cdr.ImageMessage | cdr.CompressedImageMessage:
    data = topic.read(stamp)
    return cdr.read_compressed_image(data) if topic.type.endswith("CompressedImage") else cdr.read_image(data)


def _conclude(findings: Findings, where: Path, report: LabelReport, classes: ClassTable) -> None:
    if not any(report.images.values()):
        remedy = "make them with `renderocc label`, and name the sidecar with --labels"
        if report.class_topics:
            remedy += "; or train on classes alone (renderocc prepare --without-depth)"
        findings.fail("labels", f"no image has a depth label in {where}", remedy)
        return
    if not any(report.coverage.values()):
        text = f"no pixel of the labels in {where} has a depth"
        findings.fail("labels", text, "look at the labels with renderocc label --preview")
    total = report.frequencies[: len(classes)].sum()
    if not total:
        remedy = "training learns only depth; see `renderocc label --help` for sources of classes"
        findings.warn("classes", f"no pixel of the labels in {where} has a class", remedy)
        return
    share = report.frequencies[: len(classes)] / total
    shown = sorted((index for index in classes.occupied_ids if share[index]), key=lambda index: -share[index])
    if not shown:
        findings.warn("classes", f"no pixel of the labels in {where} has a class other than free", "look at the labels")
        return
    findings.ok("classes", ", ".join(f"{classes.names[index]} {share[index]:.2%}" for index in shown))
    absent = [classes.names[index] for index in classes.occupied_ids if share[index] < _RARE]
    if absent:
        text = f"there are few pixels or none of {', '.join(absent)}"
        findings.warn("classes", text, "these classes will not be learned from this recording")


def check_truth(findings: Findings, contents: Contents, bag: Path, classes: ClassTable, max_time_diff: float) -> int:
    """Check the files of 3D truth beside the messages. Returns their number.

    Args:
        max_time_diff: largest time in seconds from a file's stamp to the images of its frame.
    """
    folder, files = truth_folder(bag), truth_files(bag)
    shapes: dict[tuple, Path] = {}
    starts = {name: sorted(camera.stamps) for name, camera in contents.cameras.items() if camera.stamps}
    bad, lonely = Faults(), Faults()
    for file in sorted({*folder.glob("*.npz")} - set(files.values())):
        lonely.add("its name is not a stamp in nanoseconds", str(file), "", kind="")
    for stamp, file in files.items():
        try:
            shapes.setdefault(check_truth_file(file, classes), file)
        except ValueError as error:
            bad.add(str(error), f"{file}: {error}", contents.time_text(stamp))
            continue
        near = [
            name for name, stamps in starts.items() if np.abs(np.array(stamps) - stamp).min() <= max_time_diff * 1e9
        ]
        if not near:
            reason = f"no camera has an image within {max_time_diff:g} s"
            lonely.add(reason, str(file), contents.time_text(stamp), kind="")
    for fault in bad.kinds.values():
        findings.fail("truth", fault.with_count("file"), "write it again, or remove it", time=fault.where)
    for (text, _), fault in lonely.kinds.items():
        text = f"{fault.text}: {text}" + (f" (so it is with {fault.count - 1} more files)" if fault.count > 1 else "")
        findings.warn("truth", text, "it is not used", time=fault.where)
    if len(shapes) > 1:
        named = "; ".join(f"{shape} in {file.name}" for shape, file in shapes.items())
        findings.fail("truth", f"volumes of different shapes: {named}", "keep those of one grid")
    for shape, file in shapes.items():
        if shape not in _GRIDS:
            findings.warn("truth", f"{file}: the volume's shape is {shape}", "train with a grid of this shape")
    if shapes:
        findings.ok("truth", f"{len(files)} volumes of {next(iter(shapes))}")
    return len(files)
