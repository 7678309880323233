"""Plays a recorded video as raw images, for ROS installations that lack its messages."""

from __future__ import annotations

from collections.abc import Collection

from renderocc_model.rosio import cdr
from renderocc_model.rosio.bags import Topic
from renderocc_model.rosio.video_track import VIDEO_READERS
from renderocc_ros.input.video_stream import VideoStream

__all__ = ["VideoAsImages"]


class VideoAsImages:
    """Decodes the messages of a video topic, in the order of recording.

    Args:
        topic: the recorded topic.
    Attributes:
        image_topic: where its pictures belong: the image topic that the video is below, or the video's own.
        failed: why pictures could not be decoded, and how many.
    """

    def __init__(self, topic: Topic) -> None:
        self._type = topic.type
        self._stream = VideoStream()
        above, _, _ = topic.name.rpartition("/")
        self.image_topic = above if above.rpartition("/")[2].startswith("image") else topic.name
        self.failed: dict[str, int] = {}

    @staticmethod
    def can_play(topic: Topic, recorded: Collection[str]) -> bool:
        """Whether a topic is a video whose pictures are not recorded as raw images, too."""
        return topic.type in VIDEO_READERS and VideoAsImages(topic).image_topic not in set(recorded) - {topic.name}

    def images(self, data: bytes) -> list[bytes]:
        """The serialised sensor_msgs/Image (rgb8) of the pictures that a message completes, in the order of stamps."""
        images = []
        try:
            stamp_ns, frame_id = cdr.read_header(data)
            for picture in self._stream.add(stamp_ns, self._type, data, frame_id):
                images.append(cdr.write_image(picture.stamp_ns, picture.given, picture.rgb(), "rgb8"))
        except ValueError as error:
            self.failed[str(error)] = self.failed.get(str(error), 0) + 1
        return images
