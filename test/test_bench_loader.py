"""`renderocc bench loader`: that both ways it compares give the same rays, and that it reports them."""

import numpy as np
import pytest

from training import bench_loader
from training.data.dataset import RayDataset, SampleConfig
from training.data.prepare import PrepareConfig, prepare_recording
from training.recordings.frames import Recording
from training.simulate.sensors import town_rig
from training.simulate.write import encode

pytestmark = pytest.mark.slow

WIDTH, HEIGHT = 88, 32


def pictures(_folder, rig) -> bench_loader.Pictures:
    """Labelled noise in place of the town, which takes seconds to stand."""
    rng = np.random.default_rng(0)
    made = {}
    for camera in rig:
        image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        semantic = rng.choice([4, 11, 255], (HEIGHT, WIDTH)).astype(np.uint8)
        made[camera.name] = (encode(image, None, None)["image_raw"], semantic, rng.uniform(2, 50, (HEIGHT, WIDTH)))
    return made


@pytest.fixture
def small(monkeypatch):
    for name, value in {"WIDTH": WIDTH, "HEIGHT": HEIGHT, "LABELS": 50, "SHORT": 3, "LONG": 5}.items():
        monkeypatch.setattr(bench_loader, name, value)
    monkeypatch.setattr(bench_loader, "town_pictures", pictures)


def test_both_ways_give_the_same_rays(small, tmp_path):
    """With room for every ray of positive weight there is nothing to draw: the two sets must agree."""
    rig = town_rig(WIDTH, HEIGHT)
    bag = bench_loader.write_recording(tmp_path / "bag", rig, pictures(None, rig), 3, 50)
    config = SampleConfig(height=HEIGHT, width=WIDTH, rays=10_000)
    dataset = RayDataset(prepare_recording(bag, None, tmp_path / "tables", PrepareConfig()).parent, config)
    with Recording(bag) as recording:
        views, rays = bench_loader.BagLoader(recording, config, dataset).sample(1)
    sample = dataset.sample(0, 1)
    np.testing.assert_array_equal(views, sample.current.views)

    def rows(rays) -> np.ndarray:
        ends = rays.origins + rays.directions * rays.distances[:, None]
        table = np.column_stack([rays.frame_offsets, rays.classes, rays.origins, ends])
        return table[np.lexsort(np.round(table, 2).T)]

    assert len(rays) == len(sample.rays) > 300
    np.testing.assert_allclose(rows(rays), rows(sample.rays), atol=2e-3)


def test_the_table_has_every_figure(small):
    figures, lines = bench_loader.bench_loader(2)
    for kind in ("sparse", "dense"):
        assert 0 < figures[kind]["views"] and 0 < figures[kind]["from_bag"] and 0 < figures[kind]["prepare_frame"]
    assert figures["dense"]["frame_bytes"] > figures["sparse"]["frame_bytes"]
    assert any(line.startswith("| from prepared tables |") for line in lines)
    assert "six 88x32 JPEGs, 38,400 rays of seven frames" in lines[0] and "| 50 labels a camera |" in lines[2]
