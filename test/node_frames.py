"""What the node makes of a recording, from its messages on, without ROS and without waiting."""

from __future__ import annotations

from pathlib import Path

from renderocc_model.inference.predictor import Predictor
from renderocc_model.rosio.bags import Bag
from renderocc_model.rosio.tf_buffer import TransformBuffer
from renderocc_model.rosio.video_track import VIDEO_READERS
from renderocc_ros.frame.pipeline import Frame, FramePipeline
from renderocc_ros.health.latency import StageTimes
from renderocc_ros.health.throttled_log import ThrottledLog
from renderocc_ros.input.intake import Intake
from renderocc_ros.parameters import NodeConfig


def frames_of(bag: Path, config: NodeConfig, predictor: Predictor) -> tuple[dict[int, Frame], list[str]]:
    """The frames of a recording by their stamps, and what the node would have logged.

    Topics are those of the parameters; images may be compressed or video on topics below a camera's image topic.
    """
    said, transforms = [], TransformBuffer(history=1e9, max_samples=1 << 20)
    log, cameras = ThrottledLog(said.append), config.cameras
    intake = Intake(config, cameras, transforms, log, ThrottledLog(lambda text: None), lambda: 0)
    pipeline = FramePipeline(config, cameras, predictor, transforms, log, StageTimes())
    infos = {f"/{config.camera_info_topic_of(camera).lstrip('/')}": camera for camera in cameras}
    with Bag(bag) as opened:
        kinds = {name: topic.type for name, topic in opened.topics.items()}
        messages = list(opened.messages())
    roots = {f"/{config.image_topic_of(camera).lstrip('/')}": camera for camera in cameras}
    images = {name: roots[root] for name in kinds for root in roots if name == root or name.startswith(f"{root}/")}
    for topic, _, data in messages:  # all poses first: nothing waits here
        if topic in (config.tf_topic, config.tf_static_topic):
            intake.add_tf(data, topic == config.tf_static_topic)
        elif topic == config.odom_topic:
            intake.add_odometry(data)
        elif topic in infos:
            intake.add_camera_info(infos[topic], data)
    intake.resume()
    frames, ready = {}, []
    for topic, _, data in messages:
        if topic not in images:
            continue
        if kinds[topic] in VIDEO_READERS:
            ready += intake.add_video(images[topic], data, kinds[topic])
        else:
            ready += intake.add(images[topic], data, True)
    try:
        for matched in ready:
            frames[matched.stamp_ns] = pipeline.process(matched, intake.calibrations)
    finally:
        pipeline.close()
    return frames, said
