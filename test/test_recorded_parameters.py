"""The node's parameters that a recording needs, by its metadata: as the commands find them in its messages."""

import pytest

from renderocc_model.rosio.camera_search import COMPRESSED, IMAGE, INFO
from renderocc_model.rosio.recorded_parameters import parameters_of_recording
from renderocc_model.rosio.transform_topics import ODOMETRY, TRANSFORMS

VIDEO = "foxglove_msgs/msg/CompressedVideo"
TF = {"/tf": TRANSFORMS, "/tf_static": TRANSFORMS}
CAMERA = {"/front/image_raw": IMAGE, "/front/camera_info": INFO}
INFO_TOPIC = "/{camera}/camera_info"


@pytest.fixture
def recorded(tmp_path):
    def write(topics, empty=()):
        entries = "".join(
            f"  - topic_metadata: {{name: {name}, type: {kind}, serialization_format: cdr}}\n"
            f"    message_count: {0 if name in empty else 2}\n"
            for name, kind in topics.items()
        )
        text = f"rosbag2_bagfile_information:\n  topics_with_message_count:\n{entries}"
        (tmp_path / "metadata.yaml").write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("topics", "image_topic"),
    [
        ({"/front/image_raw": IMAGE}, "/{camera}/image_raw"),
        ({"/front/image_raw/compressed": COMPRESSED}, "/{camera}/image_raw"),
        ({"/front/image_rect_color": IMAGE}, "/{camera}/image_rect_color"),
        ({"/front/image_rect/compressed": COMPRESSED}, "/{camera}/image_rect"),
        ({"/front/image_raw": VIDEO}, "/{camera}/image_raw"),
        ({"/front/video": VIDEO}, "/{camera}/video"),
    ],
)
def test_cameras_are_found_under_the_names_and_types_that_the_commands_read(recorded, topics, image_topic):
    folder = recorded(topics | {"/front/camera_info": INFO} | TF)
    expected = {"cameras": ["front"], "image_topic": image_topic, "camera_info_topic": INFO_TOPIC}
    assert parameters_of_recording(folder, {}) == expected


def test_topics_without_messages_and_depth_images_are_no_cameras(recorded):
    topics = CAMERA | {"/rear/image_raw": IMAGE, "/rear/camera_info": INFO} | TF
    topics |= {"/depth/image_raw": IMAGE, "/depth/camera_info": INFO}
    found = parameters_of_recording(recorded(topics, empty=("/rear/image_raw",)), {})
    assert found["cameras"] == ["front"]


def test_templates_of_the_vehicles_file_count_and_become_absolute(recorded):
    topics = {"/front/mono": IMAGE, "/front/calibration": INFO, "/rear/image_raw": IMAGE, "/rear/camera_info": INFO}
    given = {"image_topic": "{camera}/mono", "camera_info_topic": "<camera>/calibration", "cameras": [""]}
    found = parameters_of_recording(recorded(topics | TF), given)
    assert found["cameras"] == ["front"] and found["image_topic"] == "/{camera}/mono"
    assert found["camera_info_topic"] in ("/<camera>/calibration", "/{camera}/calibration")


def test_transforms_in_the_only_namespace_are_taken_and_of_two_vehicles_none(recorded):
    one = {"/veh1/tf": TRANSFORMS, "/veh1/tf_static": TRANSFORMS}
    found = parameters_of_recording(recorded(CAMERA | one), {"tf_topic": "/tf", "motion": {"max_speed": 30.0}})
    assert (found["tf_topic"], found["tf_static_topic"]) == ("/veh1/tf", "/veh1/tf_static")
    two = one | {"/veh2/tf": TRANSFORMS, "/veh2/tf_static": TRANSFORMS}
    assert "tf_topic" not in parameters_of_recording(recorded(CAMERA | two), {})
    assert "tf_topic" not in parameters_of_recording(recorded(CAMERA | one), {"tf_topic": "/mine/tf"})


def test_odometry_counts_only_where_transforms_do_not_move(recorded):
    static = {"/tf_static": TRANSFORMS, "/odometry/filtered": ODOMETRY}
    assert parameters_of_recording(recorded(CAMERA | static), {})["odom_topic"] == "/odometry/filtered"
    assert "odom_topic" not in parameters_of_recording(recorded(CAMERA | static), {"odom_frame": ""})
    assert "odom_topic" not in parameters_of_recording(recorded(CAMERA | static | TF), {})
    assert "odom_topic" not in parameters_of_recording(recorded(CAMERA | static | {"/gps/odom": ODOMETRY}), {})


def test_a_missing_or_damaged_metadata_file_is_named(tmp_path, recorded):
    with pytest.raises(ValueError, match="there is no .*metadata.yaml; give the folder"):
        parameters_of_recording(tmp_path, {})
    folder = recorded(CAMERA)
    (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: [1, 2]")
    with pytest.raises(ValueError, match="cannot be read.*ros2 bag reindex"):
        parameters_of_recording(folder, {})
