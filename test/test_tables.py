"""Tables on disk: what tells camera models apart, directions that undo the distortion, and raw images kept raw."""

import pickle

import numpy as np
import pytest
from tiny_bag import HEIGHT, RIG, WIDTH, K, Plan, with_raw_images, write_bag

from renderocc_model.geometry.rig import CameraModel
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, prepare_recording
from training.data.prepare.tables import (
    Tables,
    TablesError,
    list_tables,
    load_directions,
    model_digest,
    pixel_directions,
)


def test_models_that_differ_in_anything_have_other_digests():
    model = CameraModel(WIDTH, HEIGHT, K, "plumb_bob", (0.1, 0, 0, 0, 0))
    others = [
        CameraModel(WIDTH + 1, HEIGHT, K, "plumb_bob", (0.1, 0, 0, 0, 0)),
        CameraModel(WIDTH, HEIGHT, K + [[1e-9, 0, 0], [0, 0, 0], [0, 0, 0]], "plumb_bob", (0.1, 0, 0, 0, 0)),
        CameraModel(WIDTH, HEIGHT, K, "plumb_bob", (0.1, 0, 0, 0, 1e-12)),
        CameraModel(WIDTH, HEIGHT, K, "equidistant", (0.1, 0, 0, 0)),
    ]
    assert len({model_digest(one) for one in (model, *others)}) == 5
    assert model_digest(CameraModel(WIDTH, HEIGHT, K.copy(), "plumb_bob", [0.1, 0, 0, 0, 0])) == model_digest(model)


@pytest.mark.parametrize("camera", list(RIG), ids=lambda camera: camera.name)
def test_directions_project_back_onto_their_pixels(camera):
    directions = pixel_directions(camera.model).reshape(-1, 3).astype(float)
    pixels, inside = camera.model.project(directions)
    columns, rows = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    assert inside.all()
    np.testing.assert_allclose(pixels, np.stack([columns, rows], -1).reshape(-1, 2), atol=1e-4)  # of float32


def test_workers_map_the_files_and_do_not_copy_them(tmp_path):
    bag = write_bag(tmp_path / "bag", Plan(frames=1))
    tables = Tables(prepare_recording(bag, None, tmp_path / "t", PrepareConfig()))
    packed = pickle.dumps(tables)
    assert len(packed) < 1000
    np.testing.assert_array_equal(pickle.loads(packed).pixels, tables.pixels)


def test_directions_that_were_not_copied_along_are_named(tmp_path):
    with pytest.raises(TablesError, match="copy the folder directions too"):
        load_directions(tmp_path, RIG["front"].model)


def test_directions_that_are_damaged_are_named(tmp_path):
    model = RIG["front"].model
    path = tmp_path / "directions" / f"{model_digest(model)}.npy"
    path.parent.mkdir()
    np.save(path, pixel_directions(model))
    whole = path.read_bytes()
    for damage in (b"", whole[:60], whole[:-1], b"no array", whole[:200].replace(b"<f4", b"<i4") + whole[200:]):
        path.write_bytes(damage)
        with pytest.raises(TablesError, match=f"{path.name}: "):
            load_directions(tmp_path, model)


def test_only_finished_recordings_are_listed(tmp_path):
    bag = write_bag(tmp_path / "bag", Plan(frames=1))
    prepare_recording(bag, None, tmp_path / "t", PrepareConfig())
    (tmp_path / "t" / ".other.partial").mkdir()
    assert list_tables(tmp_path / "t") == ["bag"]


def test_raw_images_stay_raw_and_show_the_same(tmp_path):
    bag = write_bag(tmp_path / "packed", Plan(frames=2))
    raw = with_raw_images(bag, tmp_path / "raw", "wide")
    for one in (bag, raw):
        prepare_recording(one, None, tmp_path / "t", PrepareConfig())
    data, encoding = Tables(tmp_path / "t" / "raw").image(1, 1)
    assert (encoding.encoding, encoding.step, len(data)) == ("rgb8", 3 * WIDTH, 3 * WIDTH * HEIGHT)
    packed, same = (RayDataset(tmp_path / "t", SampleConfig(32, 64), [name]).sample(0, 1) for name in ("packed", "raw"))
    np.testing.assert_array_equal(packed.current.views, same.current.views)
