"""What is drawn at random beside the town: reproducible, kind by kind, and never at the labels' expense."""

import dataclasses

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.geometry.rig import Rig
from training.simulate import main
from training.simulate.cameras import Imaging, blurred_by_motion, draw_imaging, photograph
from training.simulate.lights import Lights
from training.simulate.materials import draw_materials
from training.simulate.plan import Plan
from training.simulate.record import Settings, record
from training.simulate.sensors import CameraRenderer, town_rig
from training.simulate.skies import draw_light, draw_weather
from training.simulate.street_grid import Slopes, Verges
from training.simulate.town import build_town
from training.simulate.trace import Tracer
from training.simulate.variety import KINDS, stream
from training.simulate.weather import Weather

pytestmark = pytest.mark.slow

STORE = get_typestore(Stores.ROS2_JAZZY)
SEED = 12


def small_rig():
    rig = town_rig(176, 64)
    return Rig((rig["cam_front"], rig["cam_back_left"]))


def files_of(folder):
    """{(topic, number): bytes} of the pictures and labels of a recording."""
    found, counts = {}, {}
    with Reader(folder) as reader:
        for connection, _, data in reader.messages():
            if connection.topic.endswith("/compressed"):
                number = counts.setdefault(connection.topic, 0)
                counts[connection.topic] += 1
                found[connection.topic, number] = STORE.deserialize_cdr(data, connection.msgtype).data.tobytes()
    return found


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual") / "town"
    record(folder, small_rig(), Settings(seed=SEED, frames=1, lidar=False, truth=False))
    return files_of(folder)


def test_everything_at_random_gives_the_same_bytes_from_any_number_of_processes(tmp_path):
    arguments = ["--seed", "5", "--frames", "2", "--random-all", "--width", "96", "--no-lidar", "--no-truth"]
    for jobs in ("1", "2"):
        assert main([str(tmp_path / jobs / "town"), *arguments, "--jobs", jobs]) == 0
    for name in ("town.mcap", "metadata.yaml", "rig.yaml"):
        assert (tmp_path / "1" / "town" / name).read_bytes() == (tmp_path / "2" / "town" / name).read_bytes()


@pytest.mark.parametrize("kind", ["light", "exposure", "blur", "noise", "jpeg", "colour", "materials"])
def test_a_kind_changes_the_pictures_and_no_label(usual, tmp_path, kind):
    settings = Settings(seed=SEED, frames=1, lidar=False, truth=False, varied=frozenset({kind}))
    record(tmp_path / "town", small_rig(), settings)
    varied = files_of(tmp_path / "town")
    assert varied.keys() == usual.keys()
    for (topic, number), data in varied.items():
        assert (data != usual[topic, number]) == ("image_raw" in topic), topic


@pytest.mark.parametrize("kind", ["slopes", "ground"])
def test_slopes_and_ground_change_labels_too_and_the_light_does_not_hang_on_them(usual, tmp_path, kind):
    settings = Settings(seed=SEED, frames=1, lidar=False, truth=False, varied=frozenset({kind}))
    record(tmp_path / "town", small_rig(), settings)
    assert files_of(tmp_path / "town")["/cam_front/depth/compressed", 0] != usual["/cam_front/depth/compressed", 0]
    suns = [build_town(SEED, 1.0, varied).weather.sun for varied in ({"light"}, {"light", kind, "materials"})]
    np.testing.assert_array_equal(*suns)


def test_without_any_option_the_town_looks_as_it_always_did(usual):
    # Means over 16 x 16 pixels of two pictures as this seed gave them before there was any option, in grey levels:
    # other processors may round other pixels, but not by much.
    for camera, expected in _AS_EVER.items():
        picture = cv2.imdecode(np.frombuffer(usual[f"/{camera}/image_raw/compressed", 0], np.uint8), cv2.IMREAD_COLOR)
        means = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).reshape(4, 16, 11, 16).mean((1, 3))
        assert np.abs(means - expected).max() < 1.5, camera


def test_hills_are_as_steep_as_they_say_at_their_steepest():
    for seed in range(5):
        slopes = Slopes(steepest=0.08, shortness=0.7, sway=0.0)
        plan = Plan(np.random.default_rng(seed), slopes=slopes)
        x, y = np.meshgrid(np.linspace(-400, 400, 801), np.linspace(-400, 400, 801))
        rise = np.hypot(*(np.gradient(plan.hills(x, y), 1.0)))
        # The waves add up to 0.08 where all are steepest in one direction: x and y waves are at right angles.
        assert 0.04 < rise.max() < 0.08
    assert np.array_equal(
        Plan(np.random.default_rng(0)).hills(x, y), Plan(np.random.default_rng(0), slopes=None).hills(x, y)
    )


def test_the_ground_beside_roads_is_of_every_kind_and_leaves_streets_where_they_are():
    usual, kerbs, hollows, verges = Plan(np.random.default_rng(3)), [], 0, set()
    for seed in range(40):
        plan = Plan(np.random.default_rng(3), verges=Verges.draw(stream(seed, "ground")))
        assert [street.centre for street in plan.along_y] == [street.centre for street in usual.along_y]
        for street in plan.along_y[1:-1]:
            at = np.array([street.centre, street.centre + street.half + 0.5])  # the road and what is beside it
            (road, beside), (usual_road, _) = plan.height(at, 40.0), usual.height(at, 40.0)
            assert road == usual_road and -1e-9 < beside - plan.hills(at, 40.0)[1] < 0.23
            kerbs.append(beside - plan.hills(at, 40.0)[1])
            verges.add(street.verge)
        middles = [((block.x0 + block.x1) / 2, (block.y0 + block.y1) / 2, block) for block in plan.blocks]
        hollows += sum(
            block.use in ("park", "field") and plan.height(x, y) < plan.hills(x, y) - 0.1 for x, y, block in middles
        )
    assert 0.25 < np.mean(np.abs(kerbs) < 1e-9) < 0.55 and np.max(kerbs) > 0.15
    assert hollows > 20 and verges == {"paved", "grass", "gravel"}


def test_grass_in_place_of_a_sidewalk_is_terrain():
    verges = Verges(kerb=0.0, unpaved=1.0, hollow=0.0, rng=np.random.default_rng(0))
    ground = {
        name: set(np.unique(Plan(np.random.default_rng(3), verges=one).ground().class_id))
        for name, one in (("usual", None), ("bare", verges))
    }
    sidewalk, terrain = (OCC3D_NUSCENES.id_of(name) for name in ("sidewalk", "terrain"))
    assert sidewalk in ground["usual"] and terrain in ground["bare"]
    shares = [
        np.mean(Plan(np.random.default_rng(3), verges=one).ground().class_id == sidewalk) for one in (None, verges)
    ]
    assert shares[1] < 0.5 * shares[0]  # what is left of it lies between dense houses


def test_skies_are_of_every_kind_and_fog_hides_what_is_far():
    skies = [draw_light(stream(seed, "light")) for seed in range(120)]
    elevations = np.degrees([np.arcsin(sky.sun[2]) for sky in skies])
    assert elevations.min() < 5 and elevations.max() > 65
    assert 5 < sum(sky.lamps == 1 for sky in skies) < 30  # 12 % of 120 are 14.4
    weathers = [draw_weather(sky, stream(seed, "weather")) for seed, sky in enumerate(skies)]
    hazes = np.array([weather.haze for weather in weathers])
    assert hazes.min() < 60 and hazes.max() > 2500
    assert all((weather.rain > 0) <= (weather.wet >= 0.5) for weather in weathers)
    assert 10 < sum(weather.rain > 0 for weather in weathers) < 40  # 20 % of 120 are 24


def test_a_street_lamp_lights_the_ground_below_it_as_its_intensity_over_the_square_of_its_height():
    lights = Lights(np.array([[10.0, 0.0, 7.0]]), np.eye(4))
    # Behind the car (x < 3.5) its headlights shine on nothing. 13 / 7^2 = 0.265 right below.
    point, normal = np.float32([[10, -30], [0, 0], [0, 0]]), np.float32([[0, 0], [0, 0], [1, 1]])
    arriving = Lights(np.array([[-30.0, 0.0, 7.0]]), np.eye(4)).arriving(point[:, 1:], normal[:, 1:])
    assert arriving[0, 0] == pytest.approx(13 / 49, rel=1e-3)
    assert lights.arriving(point, normal)[0, 0] > 13 / 49  # and the headlights' share 6.5 m ahead of them
    facing_down = lights.arriving(point[:, 1:], -normal[:, 1:])
    assert (facing_down == 0).all()


def test_motion_smears_a_line_over_as_many_pixels_as_it_moves():
    image = np.zeros((24, 48, 3), np.float32)
    image[:, 20] = 1.0
    flow = np.tile(np.float32([6.0, 0.0]), (6, 12, 1))
    smeared = blurred_by_motion(image, flow)
    # Six steps of a pixel each, half before and half after: a sixth of the light over six pixels (bilinear at halves).
    assert smeared[12, :, 0].sum() == pytest.approx(1.0, abs=1e-5)
    assert (
        (smeared[12, 18:23, 0] > 0.15).all() and (smeared[12, :16, 0] == 0).all() and (smeared[12, 25:, 0] == 0).all()
    )
    assert blurred_by_motion(image, flow * 0.05) is image


def test_the_flow_of_a_camera_that_drives_forward_leads_away_from_where_it_drives():
    town = build_town(3, 2.0)
    camera = town_rig(176, 64)["cam_front"]
    renderer = CameraRenderer(camera)
    static = Tracer([town.static])
    odom_from_camera = town.drive.odom_from_base(0.0) @ camera.base_from_camera
    directions = (renderer.ray_grid(1)[1] @ odom_from_camera[:3, :3].T).astype(np.float32)
    origin = odom_from_camera[:3, 3]
    hits = static.trace(origin, directions)
    flow = renderer._flow(town, 0.02, origin, directions, hits)
    rows, columns = flow.shape[:2]
    ground = flow[-3:]
    assert (ground[..., 1] > 0).mean() > 0.95  # the road comes nearer: down
    assert ground[:, : columns // 4, 0].mean() < 0 < ground[:, -columns // 4 :, 0].mean()


def test_a_camera_with_usual_settings_makes_the_usual_photograph():
    rng = np.random.default_rng(0)
    light = np.full((40, 60, 3), 0.2, np.float32)
    quiet = dataclasses.replace(Imaging(), noise=0.0, vignette=0.0)
    flat = photograph(light, quiet, 1.0, 0.0, np.ones(3, np.float32), rng)
    assert (flat == flat[0, 0]).all()
    warm = photograph(light, dataclasses.replace(quiet, balance=(1.3, 1.0, 0.8)), 1.0, 0.0, np.ones(3, np.float32), rng)
    assert warm[0, 0, 0] > flat[0, 0, 0] and warm[0, 0, 1] == flat[0, 0, 1] and warm[0, 0, 2] < flat[0, 0, 2]
    bright = photograph(light, quiet, 2.0, 0.0, np.ones(3, np.float32), rng)
    assert (bright > flat).all()
    noisy = photograph(light, dataclasses.replace(quiet, noise=9.0), 1.0, 0.0, np.ones(3, np.float32), rng)
    assert noisy.std() > 5 and abs(float(noisy.mean()) - float(flat.mean())) < 3
    rainy = photograph(light, quiet, 1.0, 1.0, np.ones(3, np.float32), rng)
    assert (rainy > flat.astype(int) + 5).any() and (rainy == flat).mean() > 0.3


def test_cameras_of_a_car_look_alike_but_not_the_same():
    looks = draw_imaging(4, frozenset(KINDS), 0.0, 5)
    balances = np.array([look.balance[0] for look in looks])
    others = np.array([draw_imaging(seed, frozenset(KINDS), 0.0, 1)[0].balance[0] for seed in range(30)])
    assert 0 < balances.std() < 0.6 * others.std()
    assert draw_imaging(4, frozenset({"rig", "light"}), 0.0, 3) == [None] * 3
    assert {look.quality for look in draw_imaging(4, frozenset({"blur"}), 0.0, 3)} == {92}


def test_materials_leave_albedo_between_black_and_white():
    town = build_town(3, 2.0)
    camera = CameraRenderer(town_rig(88, 32)["cam_front"])
    for seed in range(3):
        town.materials = draw_materials(np.random.default_rng(seed))
        picture = camera.render(town, Tracer([town.static]), 0.0, np.random.default_rng(0))
        assert 20 < picture.image.mean() < 235 and picture.image.std() > 15


@pytest.mark.parametrize(("weather", "dark"), [({}, False), ({"lamps": 1.0}, True)])
def test_lamps_light_a_town_without_sun(weather, dark):
    town = build_town(3, 2.0)
    night = np.zeros(3, np.float32)
    usual = Weather.draw(np.random.default_rng(0))
    town.weather = dataclasses.replace(usual, sun_colour=night, zenith=night, horizon=night, cloud_light=0.0, **weather)
    picture = CameraRenderer(town_rig(88, 32)["cam_front"]).render(
        town, Tracer([town.static]), 0.0, np.random.default_rng(0)
    )
    lit = (picture.image[20:] > 40).mean()
    assert (lit > 0.5) == dark


_AS_EVER = {
    "cam_back_left": np.array(
        [
            [157.4, 140.0, 121.4, 159.0, 212.5, 212.0, 210.4, 174.5, 98.3, 94.0, 89.0],
            [89.5, 80.3, 97.1, 101.6, 123.6, 142.8, 166.2, 108.8, 57.4, 88.7, 62.5],
            [148.5, 112.7, 151.4, 154.2, 137.7, 126.2, 144.9, 145.1, 95.1, 85.4, 70.0],
            [129.1, 130.2, 146.9, 161.4, 161.8, 158.6, 166.0, 167.7, 175.5, 179.5, 179.0],
        ]
    ),
    "cam_front": np.array(
        [
            [162.0, 130.1, 173.5, 211.4, 186.5, 211.4, 214.6, 204.4, 189.2, 190.3, 213.5],
            [123.5, 91.8, 136.2, 187.4, 188.2, 193.7, 159.5, 155.8, 138.9, 138.0, 163.0],
            [159.6, 146.2, 148.6, 129.4, 160.6, 171.8, 171.6, 114.2, 113.8, 94.0, 82.2],
            [163.4, 163.5, 161.2, 171.8, 166.4, 166.7, 171.2, 159.8, 93.7, 53.1, 45.2],
        ]
    ),
}
