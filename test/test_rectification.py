"""Rectified pictures: the pinhole of P, the axes turned by R, the second camera beside the first; OpenCV decides."""

import cv2
import numpy as np
import pytest

from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.cdr_messages import CameraInfoMessage, RegionOfInterest
from renderocc_model.rosio.rectification import (
    Rectification,
    baseline_doubts,
    calibration_doubts,
    frames_from_optical,
    is_rectified,
    rectification_from_info,
)

K = np.array([[310.0, 0, 320], [0, 305.0, 236], [0, 0, 1]])
D = (-0.21, 0.04, 0.001, -0.002, 0.0)
SIZE = (640, 480)


def stereo(baseline=0.3):
    """R and P of both cameras of a pair by cv2.stereoRectify; the right one is turned and `baseline` m to the right."""
    right_from_left = cv2.Rodrigues(np.array([0.02, 0.05, -0.01]))[0]
    translation = right_from_left @ (-baseline, 0.004, 0.002)
    R1, R2, P1, P2, *_ = cv2.stereoRectify(K, np.array(D), K, np.array(D), SIZE, right_from_left, translation)
    return right_from_left, translation, (R1, P1), (R2, P2)


def info(R=np.eye(3), P=None, D=D, K=K, frame="left", binning=1, roi=(0, 0, 0, 0), model="plumb_bob", size=SIZE):
    x, y, width, height = roi
    P = np.hstack([K, np.zeros((3, 1))]) if P is None else P
    region = RegionOfInterest(x, y, height, width, False)
    return CameraInfoMessage(
        0, frame, size[1], size[0], model, np.array(D, float), K, np.array(R, float), P, binning, binning, region
    )


POINTS = np.random.default_rng(1).uniform((-2, -1.5, 4), (2, 1.5, 9), (50, 3))


@pytest.mark.parametrize(
    ("topic", "rectified"),
    [
        ("/front/image_rect", True),
        ("/front/image_rect/compressed", True),
        ("/front/image_rect_color", True),
        ("/CAM_FRONT/image_rect_compressed", True),
        ("/front/image_rect/ffmpeg", True),
        ("/front/image_raw", False),
        ("/front/image_raw/compressed", False),
        ("/rectangle/image_raw", False),
    ],
)
def test_rectified_pictures_are_known_by_their_topics_name(topic, rectified):
    assert is_rectified(topic) is rectified
    assert is_rectified(topic, "all") and not is_rectified(topic, "none")


def test_a_point_is_where_opencv_sees_it_in_the_rectified_picture():
    _, _, (R, P), _ = stereo()
    message = info(R, P)
    model = camera_model_from_info(message, rectified=True)
    pose = frames_from_optical({"left": ("left", rectification_from_info(message))})["left"]
    pixels, _ = model.project((np.linalg.inv(pose) @ np.c_[POINTS, np.ones(50)].T).T[:, :3])
    raw = cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), K, np.array(D))[0]
    expected = cv2.undistortPoints(raw, K, np.array(D), R=R, P=P)[:, 0]
    assert np.abs(pixels - expected).max() < 1e-2  # undistortPoints iterates


@pytest.mark.parametrize("shared", [True, False])
def test_the_right_camera_of_a_pair_is_where_it_is_whether_it_names_the_left_frame_or_its_own(shared):
    right_from_left, translation, left, right = stereo()
    messages = {"left": info(*left), "right": info(*right, frame="left" if shared else "right")}
    rectifications = {name: (one.frame_id, rectification_from_info(one)) for name, one in messages.items()}
    pose = frames_from_optical(rectifications)["right"]
    frame_from_left = np.eye(4)
    if not shared:  # TF then has the right camera's own place
        frame_from_left[:3, :3], frame_from_left[:3, 3] = right_from_left, translation
    points = (np.linalg.inv(pose) @ frame_from_left @ np.c_[POINTS, np.ones(50)].T).T[:, :3]
    pixels, _ = camera_model_from_info(messages["right"], rectified=True).project(points)
    raw = cv2.projectPoints(POINTS, cv2.Rodrigues(right_from_left)[0], translation, K, np.array(D))[0]
    expected = cv2.undistortPoints(raw, K, np.array(D), R=right[0], P=right[1])[:, 0]
    assert np.abs(pixels - expected).max() < 2e-2


def test_a_second_camera_without_the_first_is_named():
    second = Rectification(tuple(np.eye(3).ravel()), (0.3, 0.0))
    first = Rectification(tuple(np.eye(3).ravel()), (0.0, 0.0))
    assert "0.300 m beside the first camera" in baseline_doubts({"right": ("left", second)})["right"]
    assert baseline_doubts({"left": ("left", first), "right": ("left", second)}) == {}
    assert baseline_doubts({"front": ("front", None)}) == {}


def test_binning_and_region_count_for_p_as_for_k():
    P = np.array([[400.0, 0, 330, 0], [0, 400, 240, 0], [0, 0, 1, 0]])
    model = camera_model_from_info(info(P=P, binning=2, roi=(100, 80, 400, 300)), rectified=True)
    # (330 - 100 - 0.5) / 2 and (240 - 80 - 0.5) / 2
    assert model.K.tolist() == [[200, 0, 114.75], [0, 200, 79.75], [0, 0, 1]]
    assert (model.width, model.height, model.coefficients) == (200, 150, (0.0,) * 5)


def test_p_serves_where_k_is_all_zeros_and_k_where_nothing_is_distorted():
    P = np.array([[400.0, 0, 330, 0], [0, 400, 240, 0], [0, 0, 1, 0]])
    assert camera_model_from_info(info(P=P, K=np.zeros((3, 3))), rectified=True).K[0, 0] == 400
    assert camera_model_from_info(info(P=np.zeros((3, 4)), D=()), rectified=True).K.tolist() == K.tolist()
    assert rectification_from_info(info(R=np.zeros((3, 3)), P=P)).rotation == tuple(np.eye(3).ravel())


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (dict(P=np.zeros((3, 4))), "camera_info has no P"),
        (dict(P=np.full((3, 4), np.nan)), "has the P"),
        (dict(P=np.array([[400.0, 0, 330, 0], [0, 400, 240, 0], [0, 0, 2, 0]])), "has the P"),
        (dict(R=np.diag((1.0, 1, 2))), "R of camera_info is no rotation"),
        (dict(R=np.diag((1.0, 1, -1))), "R of camera_info is no rotation"),
    ],
)
def test_what_cannot_describe_a_rectified_picture_is_refused(given, text):
    with pytest.raises(ValueError, match=text):
        rectification_from_info(info(**given))


@pytest.mark.parametrize(
    ("roi", "text"),
    [
        ((40, 30, 0, 0), r"roi 0x0 at \(40, 30\); give width and height"),
        ((0, 0, 640, 0), r"roi 640x0 at \(0, 0\); give width"),
        ((400, 0, 300, 480), r"roi 300x480 at \(400, 0\), which is not inside the 640x480 sensor"),
    ],
)
def test_a_region_that_cannot_be_is_refused(roi, text):
    with pytest.raises(ValueError, match=text):
        camera_model_from_info(info(roi=roi))


def test_k_and_p_that_contradict_each_other_are_named():
    other = np.hstack([np.diag((155.0, 152.5, 1)), np.zeros((3, 1))])
    other[:2, 2] = 160, 118
    assert "K and P differ" in calibration_doubts(info(P=other, D=()), rectified=False)[0]
    assert "different sizes" in calibration_doubts(info(P=other * ((0.5,), (0.5,), (1,))), rectified=True)[0]


@pytest.mark.parametrize("rectified", [False, True])
def test_usual_calibrations_are_not_doubted(rectified):
    _, _, left, right = stereo()
    optimal = np.hstack([cv2.getOptimalNewCameraMatrix(K, np.array(D), SIZE, 0)[0], np.zeros((3, 1))])
    for given in (info(), info(*left), info(*right), info(P=optimal), info(P=np.zeros((3, 4))), info(D=())):
        assert calibration_doubts(given, rectified) == []
