"""Images decoded to a device. Without a GPU, all but nvJPEG and the kernel: the CPU stands for the device, OpenCV's
full decoder for nvJPEG, and the resampler's reference for its kernel, which `test_resample` compares."""

import cv2
import numpy as np
import pytest
import torch
from realdata import REALDATA, needs_realdata

from renderocc_model.geometry.camera_model import CameraModel
from renderocc_model.geometry.undistortion import UndistortTable, network_view
from renderocc_model.images.encodings import ENCODINGS
from renderocc_model.images.preprocessing import view_from_compressed, view_from_raw
from renderocc_model.images.reduction import ImageError
from renderocc_model.inference.device_decoding import DeviceDecoder

pytestmark = pytest.mark.slow

K = np.array([[192.0, 0.0, 159.5], [0.0, 192.0, 99.5], [0.0, 0.0, 1.0]])
MODEL = CameraModel(320, 200, K, "plumb_bob", (-0.1, 0.01, 0.0, 0.0, 0.0))
TABLE = UndistortTable(MODEL, network_view(MODEL, 32, 96))
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def decode_jpeg(data):
    picture = cv2.imdecode(data.numpy(), cv2.IMREAD_COLOR)
    if picture is None:
        raise RuntimeError("nvjpeg: bad JPEG\nand where")
    return torch.from_numpy(picture[:, :, ::-1].transpose(2, 0, 1).copy())


@pytest.fixture
def said():
    return []


@pytest.fixture
def decoder(said):
    return DeviceDecoder("cpu", lambda camera, text: said.append((camera, text)), decode_jpeg)


def smooth(height=200, width=320):
    row, column = np.mgrid[:height, :width]
    waves = np.stack([np.sin(column / 18), np.cos(row / 14), np.sin((row + column) / 22)], axis=-1)
    return np.rint(128 + 90 * waves).astype(np.uint8)


def file_of(extension, picture, *options):
    return cv2.imencode(extension, picture[..., ::-1], list(options))[1].ravel()


def message_of(encoding, seed=0):
    """(bytes, step) of noise."""
    two = ("mono16", "yuv422", "uyvy", "yuv422_yuy2", "yuyv")
    pixel = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}.get(encoding, 2 if encoding in two else 1)
    step = 320 * pixel + 3
    rows = 300 if encoding == "nv12" else 200
    return np.random.default_rng(seed).integers(0, 256, rows * step, dtype=np.uint8), step


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_raw_images_give_the_view_of_the_cpu_byte_for_byte(decoder, encoding):
    data, step = message_of(encoding)
    data.flags.writeable = False  # as the bytes of a message are
    view = decoder.view_from_raw(TABLE, data, 200, 320, step, encoding)
    assert np.array_equal(view.numpy(), view_from_raw(TABLE, data, 200, 320, step, encoding))


def test_a_view_goes_where_it_is_asked_to(decoder):
    data, step = message_of("bgr8")
    views = torch.zeros(2, 32, 96, 3, dtype=torch.uint8)
    decoder.view_from_raw(TABLE, data, 200, 320, step, "bgr8", out=views[1])
    assert np.array_equal(views[1].numpy(), view_from_raw(TABLE, data, 200, 320, step, "bgr8")) and not views[0].any()
    decoder.view_from_compressed(TABLE, file_of(".png", smooth()), "front", out=views[0])
    assert np.array_equal(views[0].numpy(), view_from_compressed(TABLE, file_of(".png", smooth())))


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)], ids=["baseline", "progressive"])
def test_jpegs_decoded_in_full_look_as_those_reduced_while_decoding(decoder, said, options):
    data = file_of(".jpg", smooth(), *options)
    view = decoder.view_from_compressed(TABLE, data, "front")
    difference = np.abs(view.numpy().astype(int) - view_from_compressed(TABLE, data))
    assert difference.mean() < 1.5 and not said


def test_what_the_device_cannot_decode_is_decoded_on_the_cpu_and_said_once_for_each_camera(decoder, said):
    png, picture = file_of(".png", smooth()), smooth()
    for camera in ("front", "front", "back"):
        view = decoder.view_from_compressed(TABLE, png, camera)
        assert np.array_equal(view.numpy(), view_from_raw(TABLE, picture.reshape(-1), 200, 320, 960, "rgb8"))
    assert [camera for camera, _ in said] == ["front", "back"]
    assert said[0][1] == "its images are decoded on the CPU: not a JPEG that nvJPEG decodes"


def test_a_jpeg_that_the_device_refuses_is_the_cpus_to_judge(said):
    def refuse(data):
        raise RuntimeError("nvjpegDecode failed: 3\nat line 7")

    decoder = DeviceDecoder("cpu", lambda *words: said.append(words), refuse)
    data = file_of(".jpg", smooth())
    assert np.array_equal(decoder.view_from_compressed(TABLE, data, "front"), view_from_compressed(TABLE, data))
    assert said == [("front", "its images are decoded on the CPU: nvjpegDecode failed: 3")]


def test_memory_that_is_not_there_is_no_reason_to_decode_elsewhere():
    def full(data):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        DeviceDecoder("cpu", print, full).view_from_compressed(TABLE, file_of(".jpg", smooth()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (file_of(".jpg", smooth())[:-100], "ends without its end marker; it is truncated"),
        (file_of(".jpg", smooth(100)), "image is 320x100 but camera_info says 320x200"),
        (np.zeros(100, np.uint8), "compressed image begins with 00 00"),
    ],
)
def test_bad_files_are_refused_in_the_words_of_the_cpu(decoder, data, message):
    with pytest.raises(ImageError, match=message) as ours:
        decoder.view_from_compressed(TABLE, data, "front")
    with pytest.raises(ImageError) as theirs:
        view_from_compressed(TABLE, data)
    assert str(ours.value) == str(theirs.value)


def test_bad_raw_images_are_refused_in_the_words_of_the_cpu(decoder):
    data, step = message_of("bgr8")
    for arguments in ((data, 200, 320, 7, "bgr8"), (data[1:], 200, 320, step, "bgr8"), (data, 200, 320, step, "rgb16")):
        with pytest.raises(ImageError) as ours:
            decoder.view_from_raw(TABLE, *arguments)
        with pytest.raises(ImageError) as theirs:
            view_from_raw(TABLE, *arguments)
        assert str(ours.value) == str(theirs.value)


def test_torchvisions_decoder_is_for_cuda_devices():
    with pytest.raises(ValueError, match="device is 'cpu'; a DeviceDecoder needs a CUDA device"):
        DeviceDecoder("cpu", print)


@needs_cuda
def test_nvjpeg_decodes_to_the_device():
    decoder = DeviceDecoder("cuda", print)
    data = file_of(".jpg", smooth())
    view = decoder.view_from_compressed(TABLE, data, "front")
    assert view.device.type == "cuda"
    assert np.abs(view.cpu().numpy().astype(int) - view_from_compressed(TABLE, data)).mean() < 1.5


@needs_cuda
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_raw_images_are_resampled_on_the_device(encoding):
    data, step = message_of(encoding)
    view = DeviceDecoder("cuda", print).view_from_raw(TABLE, data, 200, 320, step, encoding).cpu().numpy()
    expected = view_from_raw(TABLE, data, 200, 320, step, encoding)
    assert np.abs(view.astype(int) - expected).max() <= (1 if encoding == "nv12" else 0)


@needs_realdata
@pytest.mark.parametrize("name", ["ddad_6cam", "nuscenes_keyframe"])
def test_real_jpegs_look_the_same_by_either_way(decoder, name):
    from pathlib import Path

    from rosbags.highlevel import AnyReader

    from renderocc_model.geometry.rig import Rig

    rig = Rig.load(Path(__file__).resolve().parents[1] / "config" / "rigs" / f"{name}.yaml")
    with AnyReader([REALDATA / name]) as reader:
        connection, _, raw = next(m for m in reader.messages() if m[0].topic.endswith("/compressed"))
        data = np.array(reader.deserialize(raw, connection.msgtype).data)
    model = rig[connection.topic.split("/")[1]].model
    for size in ((128, 352), (256, 704)):
        table = UndistortTable(model, network_view(model, *size))
        there, here = decoder.view_from_compressed(table, data).numpy(), view_from_compressed(table, data)
        assert np.abs(there.astype(int) - here).mean() < 1.5
