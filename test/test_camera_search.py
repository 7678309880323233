"""Which topics are cameras, for the node and the commands alike."""

from renderocc_model.rosio.camera_search import COMPRESSED, IMAGE, INFO, find_cameras
from renderocc_model.rosio.vehicle import Vehicle


def test_images_beside_a_calibration_count_under_other_names_if_no_template_was_chosen():
    there = {"/a/image_rect_compressed": (COMPRESSED,), "/a/camera_info": (INFO,), "/b/camera_info": (INFO,)}
    found = find_cameras(there, Vehicle())
    assert found.cameras["a"].image_topic == "/a/image_rect_compressed" and found.cameras["a"].compressed
    assert found.image_topic == "{camera}/image_rect_compressed" and "are used, of 1 cameras" in found.note
    assert not find_cameras(there, Vehicle(image_topic="{camera}/image_mono")).cameras


def test_the_name_that_most_cameras_have_is_taken():
    there = {f"/{name}/camera_info": (INFO,) for name in "abc"}
    there |= {"/a/image_color": (IMAGE,), "/b/image_rect": (IMAGE,), "/c/image_rect": (IMAGE,)}
    found = find_cameras(there, Vehicle())
    assert sorted(found.cameras) == ["b", "c"] and found.image_topic == "{camera}/image_rect"


def test_aligned_depth_beside_the_cameras_is_no_camera_unless_it_is_named():
    there = {
        f"/cam/{name}/{topic}": (kind,)
        for name in ("color", "aligned_depth_to_color")
        for topic, kind in (("image_raw", IMAGE), ("camera_info", INFO))
    }
    there["/cam/depth/image_raw"] = (IMAGE,)  # without calibration: not a camera that lacks one, either
    found = find_cameras(there, Vehicle())
    assert list(found.cameras) == ["cam/color"] and not found.uncalibrated
    named = Vehicle(cameras=("cam/aligned_depth_to_color",))
    assert list(find_cameras(there, named).cameras) == ["cam/aligned_depth_to_color"]


def test_a_camera_that_is_called_after_depth_is_one():
    there = {"/depth_camera/image_raw": (IMAGE,), "/depth_camera/camera_info": (INFO,)}
    assert list(find_cameras(there, Vehicle()).cameras) == ["depth_camera"]


def test_a_named_camera_that_is_not_there_is_missing_with_the_topic():
    there = {"/front/image_raw": (IMAGE,), "/front/camera_info": (INFO,), "/rear/image_raw": (IMAGE,)}
    found = find_cameras(there, Vehicle(cameras=("front", "rear", "nose")))
    assert list(found.cameras) == ["front"] and found.missing["rear"] == "no camera_info on /rear/camera_info"
    assert found.missing["nose"].startswith("no images on /nose/image_raw; cameras are front, rear")


def test_raw_or_compressed_as_the_caller_prefers_and_as_the_vehicle_says():
    there = {"/a/image_raw": (IMAGE,), "/a/image_raw/compressed": (COMPRESSED,), "/a/camera_info": (INFO,)}
    assert not find_cameras(there, Vehicle()).cameras["a"].compressed
    assert find_cameras(there, Vehicle(), prefer=COMPRESSED).cameras["a"].compressed
    assert not find_cameras(there, Vehicle(image_transport="raw"), prefer=COMPRESSED).cameras["a"].compressed
