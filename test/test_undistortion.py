"""Views and resampling tables: full, square-pixelled, level, and showing each direction where it belongs."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renderocc_model.geometry.rig import CameraModel, Rig
from renderocc_model.geometry.transforms import transform_from
from renderocc_model.geometry.undistortion import FILL_COLOUR, UndistortTable, View, network_view

RIGS = Path(__file__).resolve().parents[1] / "config" / "rigs"
CAMERAS = {f"{path.stem}/{camera.name}": camera for path in sorted(RIGS.glob("*.yaml")) for camera in Rig.load(path)}


def pinhole(width=1600, height=900, focal=1266.0, cx=None, cy=None, model="plumb_bob", coefficients=()):
    cx, cy = (width / 2 - 0.5 if cx is None else cx), (height / 2 - 0.5 if cy is None else cy)
    return CameraModel(width, height, [[focal, 0, cx], [0, focal, cy], [0, 0, 1]], model, coefficients)


def tilted(pitch_down, roll=0.0):
    """base_from_camera of a camera that looks ahead, turned down and then about its axis, degrees."""
    down, about = math.radians(pitch_down) / 2, math.radians(roll) / 2
    looking = transform_from([0, 0, 1.5], [-0.5, 0.5, -0.5, 0.5])
    return (
        looking
        @ transform_from([0, 0, 0], [-math.sin(down), 0, 0, math.cos(down)])
        @ transform_from([0, 0, 0], [0, 0, math.sin(about), math.cos(about)])
    )


def colours_of(directions, frequency=30.0):
    """A smooth world at infinity: an RGB colour (..., 3), 0..255 float, for each unit direction."""
    x, y, _ = np.moveaxis(directions * frequency, -1, 0)
    return 127.5 + 100 * np.stack([np.sin(x), np.cos(y), np.sin(0.7 * (x + y))], axis=-1)


def reduced_photograph(model, factor, frequency=30.0):
    """What the camera sees of that world: the colour along each pixel's direction, averaged over factor x factor."""
    columns, rows = np.meshgrid(np.arange(model.width), np.arange(model.height))
    directions = model.unproject(np.stack([columns, rows], axis=-1).reshape(-1, 2))
    colours = colours_of(directions, frequency).reshape(model.height, model.width, 3)
    height, width = model.height // factor, model.width // factor
    blocks = colours[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return np.rint(np.nan_to_num(blocks.mean(axis=(1, 3)))).astype(np.uint8)


class TestNetworkView:
    def test_a_nuscenes_like_camera_keeps_its_width_and_its_horizon_lies_at_45_percent(self):
        view = network_view(pinhole(), 128, 352)
        # 1600 -> 352 pixels: 1266 * 0.22 = 278.52 px; the principal point stays in the middle of the width.
        assert view.K[0, 0] == pytest.approx(278.52) and view.K[1, 1] == view.K[0, 0]
        assert view.K[0, 2] == pytest.approx(175.5)
        # 45 % of 128 rows is 57.6 from the top edge, which is row 57.1 as rows begin at -0.5.
        assert view.K[1, 2] == pytest.approx(57.1)

    @pytest.mark.parametrize("name", CAMERAS)
    @pytest.mark.parametrize(("height", "width"), [(128, 352), (256, 704), (512, 1408)])
    def test_views_of_real_cameras_are_full_level_and_not_stretched(self, name, height, width):
        camera = CAMERAS[name]
        view = network_view(camera.model, height, width, camera.base_from_camera)
        assert (view.height, view.width) == (height, width)
        assert view.K[0, 0] == view.K[1, 1] and view.K[0, 1] == 0
        directions = view.directions()
        border = np.concatenate([directions[[0, -1]].reshape(-1, 3), directions[:, [0, -1]].reshape(-1, 3)])
        assert camera.model.project(border)[1].all()
        # The horizon is where directions have no vertical part in base_link; where does it cross the middle column?
        climb = (view.directions()[:, width // 2] @ camera.base_from_camera[:3, :3].T)[:, 2]
        row = int(np.flatnonzero(climb < 0)[0])
        if "fisheye" in name:  # these look down by up to 40 degrees and have no more rows above
            assert 0.1 * height < row < 0.5 * height
        else:
            assert row == pytest.approx(0.45 * height, abs=0.01 * height + 1)

    def test_a_wide_camera_is_limited_to_55_degrees_each_side(self):
        fisheye = pinhole(1920, 1080, 500.0, model="equidistant", coefficients=(0.0,) * 4)
        view = network_view(fisheye, 128, 352)
        left, right = view.directions()[64, 0], view.directions()[64, -1]
        # Pixel centres are half a pixel inside the edges: a little less than 55 degrees.
        assert math.degrees(math.atan2(-left[0], left[2])) == pytest.approx(55, abs=0.2)
        assert math.degrees(math.atan2(right[0], right[2])) == pytest.approx(55, abs=0.2)

    def test_a_camera_with_too_few_rows_is_zoomed_until_they_suffice(self):
        # 1600 x 400 is 4 : 1, the view 2.75 : 1: all 400 rows go into 128, so the focal length is 1000 * 0.32.
        view = network_view(pinhole(1600, 400, 1000.0), 128, 352)
        assert view.K[0, 0] == pytest.approx(320, rel=0.03)
        assert UndistortTable(pinhole(1600, 400, 1000.0), view).valid.all()

    def test_rows_are_shifted_rather_than_left_empty(self):
        # The principal point is near the top: only 50 source rows lie above it, 11 of the view's, instead of 57.6.
        model = pinhole(cy=49.5)
        view = network_view(model, 128, 352)
        assert view.K[1, 2] == pytest.approx(50 * 0.22 - 0.5)
        assert UndistortTable(model, view).valid.all()

    def test_a_camera_that_looks_down_is_cropped_towards_the_horizon(self):
        model = pinhole(1600, 1200)
        level, down = network_view(model, 128, 352, tilted(0)), network_view(model, 128, 352, tilted(10))
        assert np.allclose(level.K, network_view(model, 128, 352).K)
        # The horizon is 10 degrees above the axis: 278.52 * tan(10 deg) = 49.11 rows.
        assert down.K[1, 2] - level.K[1, 2] == pytest.approx(49.11, abs=0.01)

    def test_a_camera_mounted_upside_down_keeps_55_percent_above_its_horizon(self):
        view = network_view(pinhole(), 128, 352, tilted(0, roll=180))
        assert view.K[1, 2] == pytest.approx(0.55 * 128 - 0.5)

    @pytest.mark.parametrize("mount", [tilted(0, roll=90), tilted(90)])
    def test_where_no_row_is_the_horizon_the_axis_stands_for_it(self, mount):
        assert network_view(pinhole(), 128, 352, mount) == network_view(pinhole(), 128, 352)

    def test_corners_that_pincushion_leaves_empty_are_zoomed_away(self):
        model = pinhole(800, 400, 500.0, coefficients=(0.4, 0.1, 0.0, 0.0))
        view = network_view(model, 176, 352)
        assert UndistortTable(model, view).valid.all()

    def test_an_upright_picture_fits_a_wide_view(self):
        model = pinhole(900, 1600, 1266.0)
        assert UndistortTable(model, network_view(model, 128, 352)).valid.all()

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(200, 2000),
        st.integers(200, 2000),
        st.floats(0.3, 3),
        st.floats(0.3, 0.7),
        st.floats(0.3, 0.7),
        st.floats(-0.35, 0.1),
        st.floats(-40, 40),
        st.floats(-20, 20),
    )
    def test_any_camera_gets_a_view_in_front_of_it(self, width, height, focal, cx, cy, k1, pitch, roll):
        model = pinhole(width, height, focal * width, cx * width, cy * height, coefficients=(k1, 0.0, 0.0, 0.0))
        view = network_view(model, 64, 176, tilted(pitch, roll))
        table = UndistortTable(model, view)
        assert table.valid.any()
        assert view == network_view(model, 64, 176, tilted(pitch, roll))  # the same again

    def test_a_camera_that_sees_only_far_off_its_axis_is_refused(self):
        # Columns 0 to 639 of an axis at -640 begin at atan(639.5 / 100) = 81 degrees.
        with pytest.raises(ValueError, match=r"within 55 degrees .* principal point is at \(-640, 240\) of 640x480"):
            network_view(pinhole(640, 480, 100.0, cx=-640, cy=240), 128, 352)

    def test_a_view_without_pixels_is_refused(self):
        with pytest.raises(ValueError, match="size is 352x0"):
            network_view(pinhole(), 0, 352)
        with pytest.raises(ValueError, match="expected a size and a 3x3 matrix"):
            View(10, 10, np.full((3, 3), np.nan))


class TestView:
    def test_directions_are_unit_and_of_the_pixel_centres(self):
        view = View(4, 3, [[2.0, 0, 1], [0, 4.0, 1], [0, 0, 1]])
        directions = view.directions()
        assert directions.shape == (3, 4, 3)
        assert directions[1, 1] == pytest.approx([0, 0, 1])
        # Pixel (column 3, row 0): (1, -0.25, 1) over sqrt(1 + 1/16 + 1) = 1.436141.
        assert directions[0, 3] == pytest.approx([0.696311, -0.174078, 0.696311], abs=1e-6)

    def test_views_with_the_same_numbers_are_equal(self):
        assert View(4, 3, np.eye(3)) == View(4, 3, np.eye(3)) != View(4, 4, np.eye(3))
        assert len({View(4, 3, np.eye(3)), View(4, 3, np.eye(3))}) == 1


LENSES = {
    "nuScenes front": CAMERAS["nuscenes_keyframe/cam_front"].model,
    "fisheye front": CAMERAS["fisheye_4cam/camera_front"].model,
    "fisheye left": CAMERAS["fisheye_4cam/camera_left"].model,
    "barrel": pinhole(1280, 720, 700.0, coefficients=(-0.3, 0.1, 0.002, -0.001, -0.01)),
    "rational": pinhole(
        1280, 720, 700.0, model="rational_polynomial", coefficients=(1.2, 0.4, 0.001, 0.0002, 0.01, 1.5, 0.7, 0.05)
    ),
}


class TestUndistortTable:
    @pytest.mark.parametrize(
        ("name", "size"),
        [(name, (128, 352)) for name in LENSES] + [("nuScenes front", (256, 704)), ("fisheye left", (256, 704))],
    )
    def test_every_pixel_shows_what_lies_in_its_direction(self, name, size):
        # A world known by direction, photographed through the lens and resampled, must equal the world seen through the
        # view, at every pixel: what is straight in one is straight in the other. Its waves turn by 1/12 rad a view
        # pixel or less, so that their 100 levels change by up to 8.3 a pixel: a quarter of a pixel out of place shows.
        model = LENSES[name]
        view = network_view(model, *size)
        table = UndistortTable(model, view)
        frequency = view.K[0, 0] / 12
        picture = table.apply(reduced_photograph(model, table.factor, frequency))
        difference = picture - colours_of(view.directions(), frequency)
        assert table.valid.all()
        assert np.abs(difference).max() < 2.0
        assert np.abs(difference).mean() < 0.5

    @pytest.mark.parametrize(
        ("width", "factor"), [(1408, 1), (704, 2), (352, 4), (176, 8), (88, 8), (800, 2), (840, 2), (850, 1)]
    )
    def test_the_reduction_leaves_at_least_the_views_resolution(self, width, factor):
        # 1600 pixels into 704 are 2.27 each: 2. Into 352, 4.5: 4. Into 88, 18: 8, the most there is. Into 840, 1.905:
        # as good as 2; into 850, 1.882: not.
        model = pinhole()
        assert UndistortTable(model, network_view(model, width * 128 // 352, width)).factor == factor

    def test_only_the_rows_that_the_view_shows_are_needed(self):
        model = pinhole()
        table = UndistortTable(model, network_view(model, 128, 352))
        rows, columns = table.region
        # 128 view rows of 4.545 source pixels: 582 of 900 rows, up to a block of 8 more at each side.
        assert 582 <= rows.stop - rows.start <= 582 + 2 * 8 and rows.start % 8 == 0 and rows.stop % 4 == 0
        assert (columns.start, columns.stop) == (0, 1600)
        assert table.reduced_shape == (225, 400)
        photograph = reduced_photograph(model, 4)
        part = photograph[rows.start // 4 : rows.stop // 4]
        assert part.shape[:2] == table.region_shape
        assert np.array_equal(table.apply(part), table.apply(photograph))

    def test_regions_hold_whole_pairs_of_pixels(self):
        # At factor 1, too, where a region of an odd number of rows cuts the chroma of nv12 in two.
        for height in range(60, 80):
            model = pinhole(640, 480, 500.0)
            table = UndistortTable(model, View(300, height, [[500.0, 0, 149.7], [0, 500.0, height / 2], [0, 0, 1]]))
            assert table.factor == 1
            assert all((part.stop - part.start) % 2 == part.start % 2 == 0 for part in table.region)

    def test_a_view_goes_where_it_is_asked_to(self):
        table = UndistortTable(pinhole(), network_view(pinhole(), 128, 352))
        reduced = reduced_photograph(pinhole(), 4)
        views = np.zeros((3, 128, 352, 3), np.uint8)
        assert table.apply(reduced, views[1]).base is views
        assert np.array_equal(views[1], table.apply(reduced)) and not views[0].any() and not views[2].any()
        for out in (views[0, :, :, ::-1], views[0].astype(np.int8), views[0, :100], views[:, 0]):
            with pytest.raises(ValueError, match=r"out is .*; expected writable uint8 \(128, 352, 3\) without gaps"):
                table.apply(reduced, out)

    def test_pixels_without_a_source_are_marked_and_grey(self):
        model = pinhole()
        # A view twice as wide as the camera: its outer quarters look past the image.
        view = View(352, 128, [[139.26, 0, 175.5], [0, 139.26, 63.5], [0, 0, 1]])
        table = UndistortTable(model, view)
        picture = table.apply(np.full((*table.reduced_shape, 3), 200, dtype=np.uint8))
        assert not table.valid[:, :80].any() and not table.valid[:, -80:].any() and table.valid[40:90, 100:250].all()
        assert (picture[table.valid] == 200).all()
        assert (picture[~table.valid] == FILL_COLOUR).all()

    def test_a_view_of_nothing_is_all_grey(self):
        lens = pinhole(640, 480, 500.0, coefficients=(-0.4, 0.0, 0.0, 0.0))
        view = View(8, 4, [[100.0, 0, -500], [0, 100.0, 2], [0, 0, 1]])  # everything 79 degrees to the right
        table = UndistortTable(lens, view)
        assert not table.valid.any()
        assert (table.apply(np.zeros((*table.reduced_shape, 3), np.uint8)) == FILL_COLOUR).all()

    def test_directions_past_a_fold_are_not_shown(self):
        lens = pinhole(640, 480, 500.0, coefficients=(-0.4, 0.0, 0.0, 0.0))
        view = View(200, 20, [[20.0, 0, 99.5], [0, 20.0, 9.5], [0, 0, 1]])  # 79 degrees to each side
        angles = np.degrees(np.arccos(view.directions()[..., 2]))
        # The image edge, at 320 px, is r (1 - 0.4 r^2) = 0.64 > 0.6086: only the fold bounds the picture.
        assert UndistortTable(lens, view).valid[10].sum() == (angles[10] < 42.39).sum()
        assert not UndistortTable(lens, view).valid[angles > 42.4].any()

    def test_pictures_of_another_size_or_type_are_refused(self):
        table = UndistortTable(pinhole(), network_view(pinhole(), 128, 352))
        with pytest.raises(
            ValueError, match="reduced picture is 300x200; expected 400x225, the camera's 1600x900 by 4"
        ):
            table.apply(np.zeros((200, 300, 3), np.uint8))
        with pytest.raises(ValueError, match="picture is float32"):
            table.apply(np.zeros((225, 400, 3), np.float32))
