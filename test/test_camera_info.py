"""camera_info: binning and region of interest are applied once, and a K that has them already is refused."""

import numpy as np
import pytest

from renderocc_model.rosio.camera_info import camera_model_from_info
from renderocc_model.rosio.camera_topics import CameraTopics
from renderocc_model.rosio.cdr_messages import CameraInfoMessage, RegionOfInterest

WHOLE = (0, 0, 0, 0)


def info(focal, cx, cy, binning=1, roi=WHOLE, model="plumb_bob", D=()):
    """A sensor of 1600x1200 pixels; roi is x, y, width, height."""
    x, y, width, height = roi
    K = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]], float)
    P = np.hstack([K, np.zeros((3, 1))])
    region = RegionOfInterest(x, y, height, width, False)
    return CameraInfoMessage(
        0, "camera", 1200, 1600, model, np.array(D, float), K, np.eye(3), P, binning, binning, region
    )


def test_binning_and_region_are_applied_as_rep_104_says():
    model = camera_model_from_info(info(1000, 810, 590, 2, (200, 100, 1200, 1000)))
    # The region moves the principal point to (610, 490); blocks of 2 x 2 have their centre at 0.5: (610 - 0.5) / 2.
    assert (model.width, model.height) == (600, 500)
    assert model.K.tolist() == [[500, 0, 304.75], [0, 500, 244.75], [0, 0, 1]]


@pytest.mark.parametrize(
    "given, said",
    [
        (info(250, 202, 147, 4), r"binning 4x4, but its K is that of the 400x300 picture already: .*\(202.0, 147.0\)"),
        (info(500, 405, 295, 2), r"binning 2x2, but its K .* 800x600"),
        (info(1000, 405, 295, 1, (400, 300, 800, 600)), r"roi 800x600 at \(400, 300\), but its K"),
        (info(250, 200, 150, 2, (400, 300, 800, 600)), r"binning 2x2 and roi 800x600 at \(400, 300\)"),
    ],
)
def test_what_k_has_already_is_not_applied_again(given, said):
    with pytest.raises(ValueError, match=said):
        camera_model_from_info(given)


@pytest.mark.parametrize(
    "roi",
    [
        (0, 400, 1600, 800),  # without the sky
        (0, 0, 1600, 500),  # the upper part alone; the principal point is outside
        (800, 0, 800, 1200),  # the right half
        (0, 0, 800, 600),
    ],
)
@pytest.mark.parametrize("binning", [1, 2, 4])
def test_a_region_beside_the_middle_is_no_contradiction(roi, binning):
    model = camera_model_from_info(info(1000, 810, 590, binning, roi))
    assert model.K[0, 2] == pytest.approx((810 - roi[0] - (binning - 1) / 2) / binning)


def test_a_fault_of_many_messages_is_one_complaint_with_its_first_time_and_count():
    camera = CameraTopics("front", "/front/image_raw", "/front/camera_info", False)
    for recorded_ns in (5, 6, 7):
        camera.take("/front/camera_info", recorded_ns, b"\0\1\0\0")
    (complaint,) = camera.complaints
    assert (complaint.recorded_ns, complaint.count) == (5, 3)
    assert str(complaint).endswith("(and 2 more such messages)")
