"""ROS 2 messages as CDR bytes and NumPy arrays, for the messages whose Python objects are too slow for every frame.

A serialised ROS 2 message is a 4-byte encapsulation header followed by its fields in plain CDR (XCDR1): every number is
aligned to its own size counted from the end of that header, a string is a uint32 length and its text with a closing
NUL, a sequence is a uint32 count and its elements. `cdr_reader` takes apart what cameras and TF send, into the types of
`cdr_messages`; `cdr_writer` puts together what the node publishes; this module names all three. The bytes are those of
`rclpy.serialization.serialize_message`, except that padding is zero here and whatever was in memory there.
"""

from __future__ import annotations

from .cdr_messages import (
    CameraInfoMessage,
    CompressedImageMessage,
    ImageMessage,
    MessageError,
    PointCloudMessage,
    PointField,
    RegionOfInterest,
    TransformMessage,
    VideoMessage,
)
from .cdr_reader import (
    read_camera_info,
    read_compressed_image,
    read_compressed_video,
    read_ffmpeg_packet,
    read_header,
    read_image,
    read_livox,
    read_odometry,
    read_point_cloud,
    read_string,
    read_tf,
)
from .cdr_writer import (
    IMAGE_ENCODINGS,
    POINT_DTYPE,
    write_compressed_image,
    write_image,
    write_markers,
    write_occupancy_grid,
    write_occupancy_grid_update,
    write_point_cloud,
)

__all__ = [
    "IMAGE_ENCODINGS",
    "POINT_DTYPE",
    "CameraInfoMessage",
    "CompressedImageMessage",
    "ImageMessage",
    "MessageError",
    "PointCloudMessage",
    "PointField",
    "RegionOfInterest",
    "TransformMessage",
    "VideoMessage",
    "read_camera_info",
    "read_compressed_image",
    "read_compressed_video",
    "read_ffmpeg_packet",
    "read_header",
    "read_image",
    "read_livox",
    "read_odometry",
    "read_point_cloud",
    "read_string",
    "read_tf",
    "write_compressed_image",
    "write_image",
    "write_markers",
    "write_occupancy_grid",
    "write_occupancy_grid_update",
    "write_point_cloud",
]
