"""The demo's report: what the node published, how long it took, and how right it was."""

from __future__ import annotations

from renderocc_ros.commands.demo.node import Subscriber
from renderocc_ros.commands.demo.truth import Comparison

__all__ = ["describe", "headline", "latest_diagnostics", "report", "truth_section"]

UNTRAINED = "The network is UNTRAINED: that there are voxels shows that everything runs; what they are means nothing."


def latest_diagnostics(subscriber: Subscriber) -> dict[str, dict[str, str]]:
    """Part of the node -> its values, as /diagnostics reported them last."""
    newest = {}
    for array in subscriber.messages["/diagnostics"]:
        for status in array.status:
            newest[status.name.rpartition(": ")[2]] = {value.key: value.value for value in status.values}
    return newest


def report(subscriber: Subscriber, frames: int, comparison: Comparison, about_truth: str) -> str:
    """Markdown: messages by topic, what became of the frames, how right they were, and the node's own latencies.

    Args:
        frames: that the recording has.
        about_truth: a sentence on where the recording comes from.
    """
    newest = latest_diagnostics(subscriber)
    network = newest.get("network", {})
    untrained = network.get("checkpoint", "none") == "none"
    told = ", ".join(f"{key} {network[key]}" for key in ("threshold", "device", "precision") if key in network)
    lines = [f"Network: {'none trained' if untrained else network['checkpoint']}; {told}."]
    if untrained:
        lines += ["", UNTRAINED]
    skipped = newest.get("frames", {}).get("skipped, a newer one was there", "0")
    lines += [
        "",
        f"{subscriber.frames} of the recording's {frames} frames became messages; {skipped} skipped because a newer "
        "one was there before the node was free.",
        *truth_section(comparison, len(subscriber.volumes), frames, about_truth),
        "",
        *topic_table(subscriber),
        "",
        "| stage of a frame | p50, p99 |",
        "|---|---|",
        *(f"| {stage} | {value} |" for stage, value in newest.get("latency", {}).items()),
        "",
        "placement: TF; decode: bytes to the network's views; waiting: for the frame before; publish: messages, here "
        "with all rendered views, which are drawn only because this demo listens; total: from the last image to the "
        "last message.",
    ]
    return "\n".join(lines)


def topic_table(subscriber: Subscriber) -> list[str]:
    """A row for each topic: how many messages, and the last one in a few words."""
    lines = ["| topic | messages | last one |", "|---|---|---|"]
    rendered = {topic: messages for topic, messages in subscriber.messages.items() if topic.startswith("rendered/")}
    for topic, messages in subscriber.messages.items():
        if topic not in rendered:
            name = topic if topic.startswith("/") else f"~/{topic}"
            lines.append(f"| {name} | {len(messages)} | {describe(messages[-1]) if messages else ''} |")
    counts = sorted({len(messages) for messages in rendered.values()})
    each = " or ".join(map(str, counts))
    lines.append(f"| ~/rendered/... | {each} each | semantic, depth and camera_info of each camera |")
    return lines


def truth_section(comparison: Comparison, saved: int, frames: int, about_truth: str) -> list[str]:
    """Lines on how the volumes compare with the truth; why not, where they do not."""
    if comparison.complaint:
        return ["", f"Not compared with the recording's 3D truth: {comparison.complaint}"]
    if comparison.figures is None:
        return ["", "The recording has no 3D truth (occupancy/<stamp>.npz in its folder) to compare with."]
    figures = comparison.figures
    compared = figures["counts"]["frames"]
    rows = [("the node", figures)]
    if "flat_ground" in figures.get("baselines", {}):
        rows.append(("a flat road and nothing on it", figures["baselines"]["flat_ground"]))
    apart = f", at most {comparison.apart * 1e3:.0f} ms from its stamp" if comparison.apart else ""
    lines = [
        "",
        f"Compared with the 3D truth: {compared} of the recording's {frames} frames ({saved} volumes saved{apart}), in "
        "the voxels that the node predicts and, for mIoU, that the cameras see; unknown counts as free.",
        *([about_truth] if about_truth else []),
        "",
        "| | mIoU | occupied or not, IoU | RayIoU | RayIoU at 1, 2, 4 m |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows:
        thresholds = ", ".join(percent(row[f"rayiou_{threshold}"]) for threshold in (1, 2, 4))
        columns = (percent(row["miou"]), percent(row["iou_occupied"]), percent(row["rayiou"]), thresholds)
        lines.append(f"| {name} | {' | '.join(columns)} |")
    in_truth = {name: value for name, value in figures["iou"].items() if figures["counts"]["voxels_truth"].get(name)}
    classes = ", ".join(f"{name} {percent(value)}" for name, value in in_truth.items())
    return [*lines, "", f"IoU by class, of those in the truth: {classes}."]


def headline(comparison: Comparison) -> str:
    """The figures in one line for a picture; empty where there are none."""
    figures = comparison.figures
    if figures is None:
        return ""
    frames = figures["counts"]["frames"]
    return f"mIoU {percent(figures['miou'])}, RayIoU {percent(figures['rayiou'])} over {frames} frames"


def percent(ratio: float | None) -> str:
    return "none" if ratio is None else f"{100 * ratio:.1f} %"


def describe(message) -> str:
    """One message in a few words."""
    kind = type(message).__name__
    if kind == "PointCloud2":
        return f"{message.width} points in {message.header.frame_id}"
    if kind == "MarkerArray":
        return f"{len(message.markers[0].points)} cubes"
    if kind == "OccupancyGrid":
        occupied, free = (sum(cell == value for cell in message.data) for value in (100, 0))
        return f"{message.info.width}x{message.info.height}, {occupied} occupied, {free} free"
    if kind == "Image":
        return f"{message.width}x{message.height} {message.encoding}"
    return ""
