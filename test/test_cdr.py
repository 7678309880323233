"""The bytes of `renderocc_model.rosio.cdr` against ROS's own serialiser, rosbags', and bags others wrote."""

from __future__ import annotations

import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import REALDATA, needs_realdata
from rosbags.typesys import Stores, get_typestore

from renderocc_model.rosio import cdr

rclpy_serialization = pytest.importorskip("rclpy.serialization")
serialize, deserialize = rclpy_serialization.serialize_message, rclpy_serialization.deserialize_message

from builtin_interfaces.msg import Time  # noqa: E402
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3  # noqa: E402
from nav_msgs.msg import MapMetaData, OccupancyGrid  # noqa: E402
from sensor_msgs.msg import (  # noqa: E402
    CameraInfo,
    CompressedImage,
    Image,
    PointCloud2,
    PointField,
    RegionOfInterest,
)
from std_msgs.msg import ColorRGBA, Header  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

STORE = get_typestore(Stores.ROS2_JAZZY)
SECONDS, NANOSECONDS = 1_700_000_003, 987_654_321
STAMP = SECONDS * 10**9 + NANOSECONDS
# Every length modulo 8 puts what follows at another place before alignment; beyond 8 and non-ASCII for good measure.
FRAMES = ["f" * length for length in range(18)] + ["caméra_前", "/map", "a" * 300]
READERS = [
    cdr.read_image,
    cdr.read_compressed_image,
    cdr.read_camera_info,
    cdr.read_tf,
    cdr.read_header,
    cdr.read_point_cloud,
    cdr.read_livox,
    cdr.read_string,
]


def header(frame: str = "base_link") -> Header:
    return Header(stamp=Time(sec=SECONDS, nanosec=NANOSECONDS), frame_id=frame)


def image(frame="camera", height=3, width=5, encoding="rgb8") -> Image:
    data = np.arange(height * width * 3, dtype=np.uint8).tobytes()
    return Image(header=header(frame), height=height, width=width, encoding=encoding, step=3 * width, data=data)


def camera_info(frame="camera", model="plumb_bob", coefficients=(0.1, -0.2, 0.001, 0.002, 0.3)) -> CameraInfo:
    numbers = np.random.default_rng(len(frame)).normal(size=30) * 1000
    return CameraInfo(
        header=header(frame),
        height=900,
        width=1600,
        distortion_model=model,
        d=[float(value) for value in coefficients],
        k=numbers[:9],
        r=numbers[9:18],
        p=numbers[18:],
        binning_x=2,
        binning_y=4,
        roi=RegionOfInterest(x_offset=1, y_offset=2, height=3, width=4, do_rectify=True),
    )


def tf_message(frames: list[tuple[str, str]]) -> TFMessage:
    transforms = []
    for index, (parent, child) in enumerate(frames):
        translation = Vector3(x=1.5 + index, y=-2.25, z=math.pi)
        rotation = Quaternion(x=0.1, y=-0.2, z=0.3, w=math.sqrt(1 - 0.14))
        transform = Transform(translation=translation, rotation=rotation)
        transforms.append(TransformStamped(header=header(parent), child_frame_id=child, transform=transform))
    return TFMessage(transforms=transforms)


def rosbags_bytes(message, kind: str, little_endian: bool = True) -> bytes:
    """The same message through another implementation; it fills padding with zeros, and writes big-endian too."""
    theirs = STORE.deserialize_cdr(serialize(message), kind)
    return bytes(STORE.serialize_cdr(theirs, kind, little_endian=little_endian))


def assert_same_message(ours: bytes, message, kind: str):
    """`ours` is what rosbags writes byte for byte, and what ROS writes but for padding, which ROS leaves undefined."""
    assert type(ours) is bytes
    reference = serialize(message)
    assert len(ours) == len(reference)
    assert ours == rosbags_bytes(message, kind)
    assert deserialize(ours, type(message)) == message
    padding = np.flatnonzero(np.frombuffer(ours, np.uint8) != np.frombuffer(reference, np.uint8))
    assert not any(ours[place] for place in padding)


# ------------------------------------------------------------------------------------------------------------- reading


def check_image(message: Image, read: cdr.ImageMessage):
    assert read[:-1] == (
        message.header.stamp.sec * 10**9 + message.header.stamp.nanosec,
        message.header.frame_id,
        message.height,
        message.width,
        message.encoding,
        message.is_bigendian != 0,
        message.step,
    )
    assert read.data.dtype == np.uint8 and read.data.tobytes() == bytes(message.data)


def check_camera_info(message: CameraInfo, read: cdr.CameraInfoMessage):
    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
    assert read[:5] == (stamp, message.header.frame_id, message.height, message.width, message.distortion_model)
    for array, values, shape in (
        (read.D, message.d, (len(message.d),)),
        (read.K, message.k, (3, 3)),
        (read.R, message.r, (3, 3)),
        (read.P, message.p, (3, 4)),
    ):
        assert array.dtype == np.float64 and array.flags.aligned and array.flags.writeable
        np.testing.assert_array_equal(array, np.reshape(values, shape))
    roi = message.roi
    assert read[9:11] == (message.binning_x, message.binning_y)
    assert read.roi == (roi.x_offset, roi.y_offset, roi.height, roi.width, roi.do_rectify)


def check_tf(message: TFMessage, read: list[cdr.TransformMessage]):
    assert len(read) == len(message.transforms)
    for expected, got in zip(message.transforms, read):
        stamp = expected.header.stamp.sec * 10**9 + expected.header.stamp.nanosec
        assert got[:3] == (stamp, expected.header.frame_id, expected.child_frame_id)
        translation, rotation = expected.transform.translation, expected.transform.rotation
        np.testing.assert_array_equal(got.translation, [translation.x, translation.y, translation.z])
        np.testing.assert_array_equal(got.quaternion, [rotation.x, rotation.y, rotation.z, rotation.w])


@pytest.mark.parametrize("frame", FRAMES)
def test_what_ros_serialises_is_read_whatever_the_lengths_of_the_strings(frame):
    for other in ("", "x", "rgb8", "bayer_rggb8", frame):
        check_image(image(frame, encoding=other), cdr.read_image(serialize(image(frame, encoding=other))))
        message = camera_info(frame, model=other, coefficients=[0.5] * len(other[:8]))
        check_camera_info(message, cdr.read_camera_info(serialize(message)))
        message = tf_message([(frame, other), (other, frame), (frame + other, other)])
        check_tf(message, cdr.read_tf(serialize(message)))
        message = CompressedImage(header=header(frame), format=other, data=b"\xff\xd8" + other.encode())
        read = cdr.read_compressed_image(serialize(message))
        assert read[:-1] == (STAMP, frame, other) and read.data.tobytes() == bytes(message.data)
        assert cdr.read_header(serialize(message)) == (STAMP, frame)


@pytest.mark.parametrize("little_endian", [True, False])
def test_both_byte_orders_read_the_same(little_endian):
    message = image()
    check_image(message, cdr.read_image(rosbags_bytes(message, "sensor_msgs/msg/Image", little_endian)))
    message = camera_info()
    raw = rosbags_bytes(message, "sensor_msgs/msg/CameraInfo", little_endian)
    check_camera_info(message, cdr.read_camera_info(raw))
    message = tf_message([("odom", "base_link"), ("base_link", "cam")])
    check_tf(message, cdr.read_tf(rosbags_bytes(message, "tf2_msgs/msg/TFMessage", little_endian)))


def test_nan_infinity_and_signed_zero_arrive_as_they_were_sent():
    odd = [math.nan, math.inf, -math.inf, -0.0, 5e-324]
    message = camera_info(coefficients=odd)
    read = cdr.read_camera_info(serialize(message)).D
    assert struct.pack("<5d", *read) == struct.pack("<5d", *odd)
    message = tf_message([("a", "b")])
    message.transforms[0].transform.translation.x = math.nan
    assert math.isnan(cdr.read_tf(serialize(message))[0].translation[0])


def test_a_negative_stamp_counts_back_from_the_epoch():
    # -1 s and 250,000,000 ns is a quarter after one second before the epoch: -0.75 s.
    message = Header(stamp=Time(sec=-1, nanosec=250_000_000), frame_id="x")
    assert cdr.read_header(serialize(message)) == (-750_000_000, "x")


def test_pixels_are_not_copied():
    raw = serialize(image())
    data = cdr.read_image(raw).data
    inside = np.frombuffer(raw, np.uint8)
    assert np.shares_memory(data, inside) and not data.flags.writeable
    changeable = np.array(inside)  # any contiguous buffer will do
    view = cdr.read_image(changeable).data
    changeable[-1] = 77
    assert view[-1] == 77
    check_image(image(), cdr.read_image(memoryview(raw)))


def test_bytes_after_the_last_field_are_ignored_as_ros_ignores_them():
    for padding in (b"\0", b"\0\0\0", b"garbage of any length"):
        check_image(image(), cdr.read_image(serialize(image()) + padding))
        check_tf(tf_message([("a", "b")]), cdr.read_tf(serialize(tf_message([("a", "b")])) + padding))


def test_an_empty_string_without_its_nul_is_read_as_ros_reads_it():
    raw = serialize(Header(stamp=Time(sec=1, nanosec=0), frame_id=""))[:12] + bytes(4)
    assert deserialize(raw, Header).frame_id == ""
    assert cdr.read_header(raw) == (10**9, "")


SAMPLES = [
    (cdr.read_image, image(height=2, width=2)),
    (cdr.read_image, image(height=0, width=0)),
    (cdr.read_compressed_image, CompressedImage(header=header("camera"), format="jpeg", data=b"\xff\xd8\xff\xd9")),
    (cdr.read_camera_info, camera_info()),
    (cdr.read_camera_info, camera_info(coefficients=())),
    (cdr.read_tf, tf_message([("odom", "base_link"), ("base_link", "cam")])),
    (cdr.read_header, header()),
]


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize("read, message", SAMPLES)
def test_a_message_cut_at_any_byte_is_refused_with_its_name(read, message, little_endian):
    kind = f"{type(message).__module__.split('.')[0]}/msg/{type(message).__name__}"
    raw = rosbags_bytes(message, kind, little_endian)
    read(raw)
    for length in range(len(raw)):
        with pytest.raises(cdr.MessageError, match=type(message).__name__):
            read(raw[:length])


@given(data=st.data())
@settings(max_examples=300, deadline=None, derandomize=True)
def test_overwritten_bytes_give_a_message_or_a_message_error(data):
    read, message = data.draw(st.sampled_from(SAMPLES))
    raw = bytearray(serialize(message))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        patch = data.draw(st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 4, b"\x7f\xff\xff\xff"]))
        raw[place : place + len(patch)] = patch[: len(raw) - place]
    try:
        read(raw)
    except cdr.MessageError:
        pass


@given(raw=st.binary(max_size=400), encapsulated=st.sampled_from([b"", b"\0\1\0\0", b"\0\0\0\0"]))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_random_bytes_give_a_message_or_a_message_error(raw, encapsulated):
    for read in READERS:
        try:
            read(encapsulated + raw)
        except cdr.MessageError:
            pass


def test_a_declared_length_takes_no_memory_before_it_is_checked():
    after_header = bytearray(serialize(header("abc")))  # ends at byte 20, a multiple of 4
    assert len(after_header) == 20
    huge = b"\xff\xff\xff\xff"
    cases = [
        (cdr.read_tf, b"\0\1\0\0" + huge + bytes(100)),
        (cdr.read_header, bytes(after_header[:12]) + huge + bytes(100)),
        (cdr.read_compressed_image, bytes(after_header) + b"\1\0\0\0\0\0\0\0" + huge + bytes(100)),
        (cdr.read_camera_info, bytes(after_header) + bytes(8) + b"\1\0\0\0\0\0\0\0" + huge + bytes(300)),
    ]
    tracemalloc.start()
    try:
        for read, raw in cases:
            with pytest.raises(cdr.MessageError, match="cut short or is of another type"):
                read(raw)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_errors_name_message_field_and_finding():
    with pytest.raises(cdr.MessageError, match=r"Image: 'data' needs 45 bytes at byte .*ends at byte"):
        cdr.read_image(serialize(image())[:-1])
    with pytest.raises(cdr.MessageError, match="encapsulation 0x0007 is not plain CDR"):
        cdr.read_image(b"\0\7\0\0" + bytes(100))
    with pytest.raises(cdr.MessageError, match="expected contiguous bytes, got str"):
        cdr.read_image("text")
    with pytest.raises(cdr.MessageError, match="expected contiguous bytes"):
        cdr.read_image(np.zeros(100, np.uint8)[::2])
    raw = bytearray(serialize(header("abc")))
    raw[16] = 0xFF
    with pytest.raises(cdr.MessageError, match="'header.frame_id' is not UTF-8"):
        cdr.read_header(raw)
    raw[16:20] = b"abcd"
    with pytest.raises(cdr.MessageError, match="'header.frame_id' is not text with a single NUL at its end"):
        cdr.read_header(raw)
    raw = bytearray(serialize(camera_info()))
    raw[-1] = 2
    with pytest.raises(cdr.MessageError, match="'roi.do_rectify' is a bool but holds 2"):
        cdr.read_camera_info(raw)


# ------------------------------------------------------------------------------------------------------------- writing


def expected_point_cloud(frame, xyz, colours, confidence, labels) -> PointCloud2:
    names = [("x", 7), ("y", 7), ("z", 7), ("rgb", 7), ("confidence", 7), ("label", 6)]
    data = b"".join(
        struct.pack("<3fIfI", *map(float, point), red << 16 | green << 8 | blue, sure, label)
        for point, (red, green, blue), sure, label in zip(
            xyz.tolist(), colours.tolist(), confidence.tolist(), labels.tolist()
        )
    )
    return PointCloud2(
        header=header(frame),
        height=1,
        width=len(xyz),
        fields=[PointField(name=n, offset=4 * i, datatype=kind, count=1) for i, (n, kind) in enumerate(names)],
        is_bigendian=False,
        point_step=24,
        row_step=24 * len(xyz),
        data=data,
        is_dense=bool(np.isfinite(xyz).all()),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 1000])
def test_point_clouds_equal_those_of_ros(count):
    random = np.random.default_rng(count)
    for frame in FRAMES:
        xyz = random.normal(size=(count, 3)).astype(np.float32)
        colours = random.integers(0, 256, (count, 3), dtype=np.uint8)
        confidence = random.random(count).astype(np.float32)
        labels = random.integers(0, 256, count).astype(random.choice([np.uint8, np.int64, np.uint32]))
        ours = cdr.write_point_cloud(STAMP, frame, xyz, colours, confidence, labels)
        expected = expected_point_cloud(frame, xyz, colours, confidence, labels)
        assert_same_message(ours, expected, "sensor_msgs/msg/PointCloud2")


def test_a_point_keeps_nan_says_so_and_packs_its_colour_as_pcl_does():
    xyz = np.array([[np.nan, np.inf, -0.0]], np.float32)
    ours = cdr.write_point_cloud(STAMP, "b", xyz, np.array([[1, 2, 255]], np.uint8), [0.5], [17])
    read = deserialize(ours, PointCloud2)
    assert not read.is_dense
    # 0x000102ff little-endian: ff 02 01 00; 0.5 is 0x3f000000; 17 is 0x11.
    assert bytes(read.data)[12:] == bytes.fromhex("ff020100 0000003f 11000000")
    assert cdr.POINT_DTYPE.itemsize == read.point_step == 24


def expected_markers(frame, centres, colours, voxel_size, namespace) -> MarkerArray:
    marker = Marker(
        header=header(frame),
        ns=namespace,
        id=0,
        type=Marker.CUBE_LIST,
        action=Marker.ADD if len(centres) else Marker.DELETE,
        pose=Pose(orientation=Quaternion(x=0.0, y=0.0, z=0.0, w=1.0)),
        scale=Vector3(x=voxel_size, y=voxel_size, z=voxel_size),
        color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
        points=[Point(x=x, y=y, z=z) for x, y, z in np.asarray(centres, np.float64).tolist()],
        colors=[ColorRGBA(r=r, g=g, b=b, a=a) for r, g, b, a in np.asarray(colours, np.float32).tolist()],
    )
    return MarkerArray(markers=[marker])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 500])
def test_markers_equal_those_of_ros(count):
    random = np.random.default_rng(count)
    frames = FRAMES if count < 100 else FRAMES[:8]
    for frame in frames:
        for namespace in ("", "occupancy", frame):
            centres = random.normal(size=(count, 3)).astype(random.choice([np.float32, np.float64]))
            colours = random.random((count, 4)).astype(np.float32)
            ours = cdr.write_markers(STAMP, frame, centres, colours, 0.4, namespace)
            expected = expected_markers(frame, centres, colours, 0.4, namespace)
            assert_same_message(ours, expected, "visualization_msgs/msg/MarkerArray")


def test_no_cubes_delete_the_marker_that_is_shown():
    nothing = cdr.write_markers(STAMP, "b", np.zeros((0, 3)), np.zeros((0, 4)), 0.4)
    one = cdr.write_markers(STAMP, "b", np.zeros((1, 3)), np.ones((1, 4)), 0.4)
    marker, shown = deserialize(nothing, MarkerArray).markers[0], deserialize(one, MarkerArray).markers[0]
    assert marker.action == Marker.DELETE and shown.action == Marker.ADD
    assert (marker.ns, marker.id) == (shown.ns, shown.id)


def test_markers_take_columns_in_any_memory_order():
    centres = np.asfortranarray(np.arange(12.0).reshape(4, 3))[::-1]
    colours = np.asfortranarray(np.arange(16.0).reshape(4, 4) / 16)
    ours = cdr.write_markers(STAMP, "b", centres, colours, 0.4)
    expected = expected_markers("b", centres, colours, 0.4, "occupancy")
    assert_same_message(ours, expected, "visualization_msgs/msg/MarkerArray")


@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (3, 5), (5, 3), (7, 0), (200, 200)])
def test_grids_equal_those_of_ros(shape):
    random = np.random.default_rng(1)
    for frame in FRAMES:
        values = random.integers(-1, 101, shape).astype(np.int8)
        ours = cdr.write_occupancy_grid(STAMP, frame, values, 0.4, -40.0, -39.5, 0.25)
        expected = OccupancyGrid(
            header=header(frame),
            info=MapMetaData(
                map_load_time=header().stamp,
                resolution=float(np.float32(0.4)),
                width=shape[0],
                height=shape[1],
                origin=Pose(position=Point(x=-40.0, y=-39.5, z=0.25), orientation=Quaternion(w=1.0)),
            ),
            # ROS: row-major from (0, 0), x first
            data=[int(values[x, y]) for y in range(shape[1]) for x in range(shape[0])],
        )
        assert_same_message(ours, expected, "nav_msgs/msg/OccupancyGrid")


@pytest.mark.parametrize("encoding", sorted(cdr.IMAGE_ENCODINGS))
def test_images_equal_those_of_ros_and_read_back(encoding):
    kind, channels = cdr.IMAGE_ENCODINGS[encoding]
    random = np.random.default_rng(2)
    for height, width in [(0, 0), (1, 1), (3, 5), (4, 7), (64, 48)]:
        for frame in FRAMES:
            shape = (height, width, channels) if channels > 1 else (height, width)
            array = (random.random(shape) * 255).astype(kind)
            raw = np.asfortranarray(array)  # the memory order of the caller must not show
            ours = cdr.write_image(STAMP, frame, raw, encoding)
            expected = Image(
                header=header(frame),
                height=height,
                width=width,
                encoding=encoding,
                step=width * channels * array.itemsize,
                data=array.tobytes(),
            )
            assert_same_message(ours, expected, "sensor_msgs/msg/Image")
            check_image(expected, cdr.read_image(ours))


def test_arrays_of_the_wrong_shape_or_type_are_refused_by_name():
    colours, labels = np.zeros((2, 3), np.uint8), np.zeros(2, np.int64)
    good = dict(xyz=np.zeros((2, 3)), colours=colours, confidence=np.zeros(2), labels=labels)
    for name, bad in [("xyz", np.zeros((2, 4))), ("colours", colours[:1]), ("labels", labels[:, None])]:
        with pytest.raises(ValueError, match=rf"{name} has the shape .*expected \(2"):
            cdr.write_point_cloud(STAMP, "b", **{**good, name: bad})
    with pytest.raises(ValueError, match="colours are float64 and labels int64; expected uint8"):
        cdr.write_point_cloud(STAMP, "b", **{**good, "colours": np.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"colours has the shape \(2, 3\); expected \(2, 4\)"):
        cdr.write_markers(STAMP, "b", np.zeros((2, 3)), np.zeros((2, 3)), 0.4)
    for size in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="voxel_size is"):
            cdr.write_markers(STAMP, "b", np.zeros((2, 3)), np.zeros((2, 4)), size)
        with pytest.raises(ValueError, match="resolution is"):
            cdr.write_occupancy_grid(STAMP, "b", np.zeros((2, 3)), size, 0, 0)
    for values in (np.full((2, 2), 101), np.full((2, 2), -2), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="an occupancy grid holds -1"):
            cdr.write_occupancy_grid(STAMP, "b", values, 0.4, 0, 0)
    with pytest.raises(ValueError, match=r"expected \(X, Y\)"):
        cdr.write_occupancy_grid(STAMP, "b", np.zeros(4), 0.4, 0, 0)
    with pytest.raises(ValueError, match="encoding 'yuv422' cannot be written; choose one of rgb8"):
        cdr.write_image(STAMP, "b", np.zeros((2, 2), np.uint8), "yuv422")
    with pytest.raises(ValueError, match=r"32FC1 image: got float64 \(2, 2\); expected float32 \(height, width\)"):
        cdr.write_image(STAMP, "b", np.zeros((2, 2)), "32FC1")
    with pytest.raises(ValueError, match=r"rgb8 image: got uint8 \(2, 2\); expected uint8 \(height, width, 3\)"):
        cdr.write_image(STAMP, "b", np.zeros((2, 2), np.uint8), "rgb8")


def test_strings_and_stamps_that_ros_cannot_carry_are_refused():
    with pytest.raises(ValueError, match="NUL character"):
        cdr.write_image(STAMP, "a\0b", np.zeros((2, 2), np.uint8), "mono8")
    with pytest.raises(ValueError, match="32-bit seconds"):
        cdr.write_image(STAMP * 10**9, "b", np.zeros((2, 2), np.uint8), "mono8")
    early = deserialize(cdr.write_image(-750_000_000, "b", np.zeros((2, 2), np.uint8), "mono8"), Image).header.stamp
    assert (early.sec, early.nanosec) == (-1, 250_000_000)


def test_compressed_images_equal_those_of_ros_and_read_back():
    for frame in FRAMES:
        for count in (0, 1, 7):
            data = bytes(range(count))
            ours = cdr.write_compressed_image(STAMP, frame, "mono8; png compressed ", data)
            expected = CompressedImage(header=header(frame), format="mono8; png compressed ", data=data)
            assert_same_message(ours, expected, "sensor_msgs/msg/CompressedImage")
            assert cdr.read_compressed_image(ours).data.tobytes() == data


# ------------------------------------------------------------------------------------------------------- point clouds


def cloud(fields, data, height=1, width=1, point_step=0, row_step=0, frame="lidar", big=False) -> PointCloud2:
    described = [PointField(name=name, offset=at, datatype=kind, count=count) for name, at, kind, count in fields]
    return PointCloud2(
        header=header(frame),
        height=height,
        width=width,
        fields=described,
        is_bigendian=big,
        point_step=point_step,
        row_step=row_step,
        data=data,
        is_dense=True,
    )


@pytest.mark.parametrize("little_endian", [True, False])
@pytest.mark.parametrize("frame", FRAMES)
def test_clouds_are_read_whatever_the_lengths_of_the_strings(frame, little_endian):
    message = cloud([("x", 0, 7, 1), ("ring", 4, 4, 1)], bytes(range(12)), 1, 2, 6, 12, frame)
    read = cdr.read_point_cloud(rosbags_bytes(message, "sensor_msgs/msg/PointCloud2", little_endian))
    assert read[:4] == (STAMP, frame, 1, 2) and read[5:8] == (False, 6, 12) and read.is_dense and len(read) == 2
    assert read.fields == (("x", 0, 7, 1), ("ring", 4, 4, 1))
    assert read.column("ring").tolist() == [4 + 256 * 5, 10 + 256 * 11]  # bytes 4, 5 and 10, 11, least first


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    "datatype, kind", [(1, "i1"), (2, "u1"), (3, "i2"), (4, "u2"), (5, "i4"), (6, "u4"), (7, "f4"), (8, "f8")]
)
def test_every_field_type_is_read_in_both_byte_orders_at_any_offset_and_row_padding(datatype, kind, big):
    order = np.dtype((">" if big else "<") + kind)
    values = np.array([[-3, 7, 100], [0, 1, -128]]).astype(order)
    # 3 bytes before the value, 2 behind it; rows end with 5 bytes of padding.
    point_step = 3 + order.itemsize + 2
    row_step = 3 * point_step + 5
    data = np.full((2, row_step), 0xAB, np.uint8)
    for row in range(2):
        for column in range(3):
            at = column * point_step + 3
            data[row, at : at + order.itemsize] = np.frombuffer(values[row, column : column + 1].tobytes(), np.uint8)
    message = cloud([("v", 3, datatype, 1)], data.tobytes(), 2, 3, point_step, row_step, big=big)
    column = cdr.read_point_cloud(serialize(message)).column("v")
    assert column.dtype == np.dtype(kind) and column.dtype.isnative
    assert column.tolist() == values.ravel().tolist()


def test_fields_of_several_values_and_empty_clouds_are_read():
    data = np.arange(8, dtype="<f4").tobytes()
    read = cdr.read_point_cloud(serialize(cloud([("n", 4, 7, 3), ("x", 0, 7, 0)], data, 1, 2, 16, 32)))
    assert read.column("n").tolist() == [[1, 2, 3], [5, 6, 7]]
    assert read.column("x").tolist() == [0, 4]  # a count of 0 means 1
    empty = cdr.read_point_cloud(serialize(cloud([(axis, 0, 7, 1) for axis in "xyz"], b"", 1, 0, 12, 0)))
    assert empty.xyz().shape == (0, 3)


def test_fields_that_are_not_in_the_bytes_are_refused_by_name():
    def read(*arguments):
        return cdr.read_point_cloud(serialize(cloud(*arguments)))

    eight = bytes(8)
    with pytest.raises(cdr.MessageError, match="no field 'label'; it has x"):
        read([("x", 0, 7, 1)], eight, 1, 2, 4, 8).column("label")
    with pytest.raises(cdr.MessageError, match="field 'x' has datatype 9; expected 1 to 8"):
        read([("x", 0, 9, 1)], eight, 1, 2, 4, 8).column("x")
    with pytest.raises(cdr.MessageError, match="field 'x' reaches to byte 6 of a point, but point_step is 4"):
        read([("x", 2, 7, 1)], eight, 1, 2, 4, 8).column("x")
    for height, width, point_step, row_step in [(1, 3, 4, 12), (2, 1, 4, 8), (2**20, 2**20, 4, 0), (2, 2, 4, 0)]:
        with pytest.raises(cdr.MessageError, match="do not fit its 8 bytes"):
            read([("x", 0, 7, 1)], eight, height, width, point_step, row_step).column("x")
    raw = bytearray(serialize(cloud([("x", 0, 7, 1)], eight, 1, 2, 4, 8, frame="abc")))
    raw[4 + 24 : 4 + 28] = struct.pack("<I", 2**31)  # stamp 8, frame 4 + 4, height and width 8: the number of fields
    with pytest.raises(cdr.MessageError, match="'fields' declares 2147483648"):
        cdr.read_point_cloud(bytes(raw))


# --------------------------------------------------------------------------------------------------- others' recordings


def recorded(bag: str, kinds: set[str]):
    from rosbags.highlevel import AnyReader

    with AnyReader([REALDATA / bag]) as reader:
        connections = [connection for connection in reader.connections if connection.msgtype in kinds]
        for connection, _, raw in reader.messages(connections=connections):
            yield connection.msgtype, bytes(raw), reader.deserialize(raw, connection.msgtype)


@needs_realdata
@pytest.mark.parametrize(
    "bag, count",
    [
        # two of each of the four types with a reader
        ("all_types_bags/test_bag_mcap", 8),
        ("all_types_bags/test_bag_sqlite3", 8),
        # images + infos + /tf + /tf_static: 18 + 18 + 6 + 1, 6 + 6 + 7 + 1, 4 + 4 + 1 + 1
        ("ddad_6cam", 43),
        ("nuscenes_keyframe", 20),
        ("fisheye_4cam", 10),
    ],
)
def test_recordings_of_others_are_read_as_rosbags_reads_them(bag, count):
    image_type, compressed_type, info_type, tf_type = (
        "sensor_msgs/msg/Image",
        "sensor_msgs/msg/CompressedImage",
        "sensor_msgs/msg/CameraInfo",
        "tf2_msgs/msg/TFMessage",
    )
    seen = 0
    for kind, raw, message in recorded(bag, {image_type, compressed_type, info_type, tf_type}):
        seen += 1
        if kind == tf_type:
            check_tf(message, cdr.read_tf(raw))
            continue
        stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
        assert cdr.read_header(raw) == (stamp, message.header.frame_id)
        if kind == image_type:
            check_image(message, cdr.read_image(raw))
        elif kind == compressed_type:
            read = cdr.read_compressed_image(raw)
            assert read[:-1] == (stamp, message.header.frame_id, message.format)
            np.testing.assert_array_equal(read.data, message.data)
        else:
            check_camera_info(message, cdr.read_camera_info(raw))
    assert seen == count


@needs_realdata
@pytest.mark.parametrize(
    "bag, count",
    [("ddad_6cam", 3), ("nuscenes_keyframe", 1), ("all_types_bags/test_bag_mcap", 2)],
)
def test_clouds_in_recordings_of_others_are_read_as_rosbags_reads_them(bag, count):
    seen = 0
    for _, raw, message in recorded(bag, {"sensor_msgs/msg/PointCloud2"}):
        read = cdr.read_point_cloud(raw)
        assert len(read) == message.height * message.width and read.data.tobytes() == message.data.tobytes()
        fields = [(field.name, field.offset, field.datatype, field.count) for field in message.fields]
        assert [tuple(field) for field in read.fields] == fields
        if bag in ("ddad_6cam", "nuscenes_keyframe"):  # little-endian float32 fields, packed rows
            rows = message.data.reshape(-1, message.point_step)
            for field in message.fields[:3]:
                theirs = rows[:, field.offset : field.offset + 4].copy().view("<f4")[:, 0]
                np.testing.assert_array_equal(read.column(field.name), theirs)
        seen += 1
    assert seen == count


@needs_realdata
@pytest.mark.parametrize("bag", ["all_types_bags/test_bag_mcap", "all_types_bags/test_bag_sqlite3"])
def test_every_recorded_message_with_a_header_begins_with_the_one_read(bag):
    from rosbags.highlevel import AnyReader

    seen = 0
    with AnyReader([REALDATA / bag]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            fields = list(getattr(message, "__dataclass_fields__", {}))
            if fields[:1] == ["header"]:
                stamp = message.header.stamp
                assert cdr.read_header(bytes(raw)) == (stamp.sec * 10**9 + stamp.nanosec, message.header.frame_id)
                seen += 1
    assert seen > 50


@needs_realdata
@pytest.mark.parametrize("bag", ["all_types_bags/test_bag_mcap", "all_types_bags/test_bag_sqlite3"])
def test_the_grids_in_recordings_of_others_are_written_with_the_same_bytes(bag):
    seen = 0
    for _, raw, message in recorded(bag, {"nav_msgs/msg/OccupancyGrid"}):
        info, stamp, corner = message.info, message.header.stamp, message.info.origin.position
        values = np.asarray(message.data, np.int8).reshape(info.height, info.width).T
        stamp_ns = stamp.sec * 10**9 + stamp.nanosec
        frame = message.header.frame_id
        ours = cdr.write_occupancy_grid(stamp_ns, frame, values, info.resolution, corner.x, corner.y, corner.z)
        # The recorded maps have no load time; ours is the stamp, the second time that it stands in the message.
        ours = ours[:12] + ours[12:].replace(struct.pack("<iI", stamp.sec, stamp.nanosec), bytes(8))
        assert ours == raw
        seen += 1
    assert seen == 2


def test_more_transforms_than_any_robot_has_are_refused_before_they_become_objects():
    one = bytes(12) + b"\1\0\0\0" + bytes(64)  # stamp, two empty strings, seven doubles: 72 bytes or more
    message = b"\0\1\0\0" + (1_000_000).to_bytes(4, "little") + one * 1_000_000
    with pytest.raises(cdr.MessageError, match="1000000 transforms; expected at most 10000"):
        cdr.read_tf(message)


def test_an_update_of_a_grid_has_the_bytes_that_rclpy_writes():
    update = pytest.importorskip("map_msgs.msg").OccupancyGridUpdate
    cells = np.array([[0, 100, -1], [-1, 0, 100]], np.int8)  # x = 0 and 1
    message = update(x=5, y=-2, width=2, height=3, data=[0, -1, 100, 0, -1, 100])
    message.header.stamp.sec, message.header.stamp.nanosec, message.header.frame_id = 1, 2, "odom"
    written = cdr.write_occupancy_grid_update(1_000_000_002, "odom", cells, 5, -2)
    assert len(written) == len(rclpy_serialization.serialize_message(message))
    assert rclpy_serialization.deserialize_message(written, update) == message
    with pytest.raises(ValueError, match="reach from"):
        cdr.write_occupancy_grid_update(0, "odom", np.full((1, 1), 101), 0, 0)
