"""Exported networks give what the network gives, for any cameras, and say what they are."""

import numpy as np
import pytest
import torch
from exported_files import FORMS, exported_file, small_checkpoint, two_threads  # noqa: F401  (a fixture)
from small_models import camera_ring, small_config

from renderocc_model import cli
from renderocc_model.export import export_checkpoint
from renderocc_model.export.backends import load_exported
from renderocc_model.export.file import read_description
from renderocc_model.export.graph import ROW, ExportedFunction, pooling_tables
from renderocc_model.field.classes import OCC3D_NUSCENES
from renderocc_model.images.preprocessing import normalise
from renderocc_model.network.checkpoint import CheckpointError
from renderocc_model.network.lift import Frustums, LiftGeometry
from renderocc_model.network.untrained import untrained_checkpoint
from renderocc_model.ops.voxel_pooling import voxel_pooling

CPU = torch.device("cpu")

pytestmark = pytest.mark.slow  # tracing takes seconds


def geometry_of(index, cells):
    """A geometry whose points lie in these cells, (N, D, h, w)."""
    index = torch.as_tensor(index, dtype=torch.int64)
    assert index.max() < cells
    return LiftGeometry(index[None], torch.zeros(1, len(index), 7), torch.eye(4).expand(1, len(index), 4, 4))


def pooled_by_tables(depth, context, index, cells):
    """What the exported graph does, cell by cell, written as loops."""
    tables = pooling_tables(geometry_of(index, cells), cells)
    weights = np.append(depth.flatten().numpy(), 0.0)
    pixels = context.permute(0, 2, 3, 1).reshape(-1, context.shape[1]).numpy()
    sums = [
        sum((weights[p] * pixels[q] for p, q in zip(points, places)), np.zeros(pixels.shape[1]))
        for points, places in zip(tables.depth_index.numpy(), tables.pixel_index.numpy())
    ]
    sums.append(np.zeros(pixels.shape[1]))
    sums += [sum(sums[row] for row in rows) for rows in tables.crowded.numpy()]
    return np.stack([sums[row] for row in tables.cell_row.numpy()])


# 3 x 7 x 4 x 6 = 504 points in 300 cells: most rows are not full; in 5: a hundred to each, 13 rows of 8.
@pytest.mark.parametrize("cells", [300, 5, 1])
@pytest.mark.parametrize("outside", [0.4, 0.0, 1.0])
def test_the_tables_sum_every_point_into_its_cell_once(cells, outside):
    random = np.random.default_rng(1)
    index = random.integers(0, cells, (3, 7, 4, 6))
    index[random.random(index.shape) < outside] = -1
    generator = torch.Generator().manual_seed(1)
    depth, context = torch.rand(3, 7, 4, 6, generator=generator), torch.rand(3, 2, 4, 6, generator=generator)
    expected = voxel_pooling(depth, context, torch.from_numpy(index), cells)
    np.testing.assert_allclose(pooled_by_tables(depth, context, index, cells), expected, rtol=1e-5, atol=1e-6)


def test_the_rows_of_a_cell_are_as_few_as_can_be():
    # Two cameras of one pixel and nine bins: cell 2 has nine points, so two rows; cell 0 nine, but for one outside.
    index = np.stack([np.full((9, 1, 1), 2), np.zeros((9, 1, 1), int)])
    index[1, 3] = -1
    tables = pooling_tables(geometry_of(index, 4), 4)
    assert ROW == 8 and tables.depth_index.shape == (3, 8)
    assert tables.depth_index[0].tolist() == [9, 10, 11, 13, 14, 15, 16, 17]
    assert tables.depth_index[1].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert tables.depth_index[2].tolist() == [8] + [18] * 7  # 18 points: 18 is the weight of zero
    assert tables.pixel_index.tolist() == [[1] * 8, [0] * 8, [0] * 8]
    assert tables.crowded.tolist() == [[1, 2], [3, 3]]  # 3 is the row of zeros; a second line fills up
    assert tables.cell_row.tolist() == [0, 3, 4, 3]


def rig_frame(config, cameras, seed=0, height=0.0):
    """Random pictures of a ring of cameras, their geometry."""
    views, poses = camera_ring(config, cameras)
    poses[:, 2, 3] += height
    pictures = np.random.default_rng(seed).integers(0, 256, (cameras, 64, 96, 3), dtype=np.uint8)
    return torch.from_numpy(pictures), Frustums(config, views).place(poses)


def same_as_the_network(checkpoint, run, pictures, geometry):
    with torch.no_grad():
        expected = checkpoint.network(normalise(pictures)[None], geometry)
        density, semantics, *nothing = run(pictures, geometry)
    assert not nothing
    # 1e-4 of a density that starts at 0.1: single precision, summed in another order, through thirty layers
    torch.testing.assert_close(density, expected.density[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(semantics, expected.semantics[0], rtol=1e-4, atol=1e-4)
    assert (semantics.argmax(-1) == expected.semantics[0].argmax(-1)).float().mean() > 0.999


@pytest.mark.parametrize("form", FORMS)
# as many cameras as were traced; another calibration; one camera; more of them
@pytest.mark.parametrize("cameras, height", [(6, 0.0), (6, 0.7), (1, 0.0), (9, -0.2)])
def test_an_exported_network_agrees_with_the_network_for_any_cameras(form, cameras, height):
    checkpoint, path = exported_file(form)
    run = load_exported(path, FORMS[form], CPU, threads=4).network
    pictures, geometry = rig_frame(checkpoint.config, cameras, height=height)
    same_as_the_network(checkpoint, run, pictures, geometry)
    same_as_the_network(checkpoint, run, pictures.flip(0), geometry)


@pytest.mark.parametrize("form", FORMS)
def test_heights_and_rays_are_exported_with_the_network(form, tmp_path):
    config = small_config("tiny", "lift.heights.count=6", "lift.rays=true")
    checkpoint = untrained_checkpoint(config, OCC3D_NUSCENES)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for part in (checkpoint.network.lift.rays, checkpoint.network.lift.predict_height):  # they begin as zeros
            part.weight.copy_(torch.randn(part.weight.shape, generator=generator))
    path = tmp_path / ("heights.onnx" if form == "onnx" else "heights.pt2")
    export_checkpoint(checkpoint, path, form, "small.safetensors")
    run = load_exported(path, FORMS[form], CPU).network
    for cameras, height in ((6, 0.0), (2, 0.7)):
        same_as_the_network(checkpoint, run, *rig_frame(config, cameras, height=height))


@pytest.mark.parametrize("form", FORMS)
def test_an_absent_camera_and_cameras_that_see_nothing_of_the_grid_change_no_file(form):
    checkpoint, path = exported_file(form)
    run = load_exported(path, FORMS[form], CPU).network
    pictures, _ = rig_frame(checkpoint.config, 4)
    views, poses = camera_ring(checkpoint.config, 4)
    frustums = Frustums(checkpoint.config, views)
    some = frustums.place(poses, np.array([True, False, True, True]))
    none = frustums.place(poses, np.zeros(4, bool))
    assert (none.voxel_index == -1).all()
    for geometry in (some, none):
        same_as_the_network(checkpoint, run, pictures, geometry)


def test_a_network_of_3d_convolutions_is_the_same_function():
    checkpoint = untrained_checkpoint(small_config("paper", "fusion.enabled=false"), OCC3D_NUSCENES)
    function = ExportedFunction(checkpoint.network).eval()
    pictures, geometry = rig_frame(checkpoint.config, 3)
    cells = int(np.prod(checkpoint.config.pooled_shape))
    same_as_the_network(
        checkpoint,
        lambda pictures, geometry: function(pictures, geometry.cameras[0], *pooling_tables(geometry, cells).in_order()),
        pictures,
        geometry,
    )


def test_the_onnx_file_has_standard_operators_only_and_none_that_scatters():
    import onnx

    model = onnx.load(exported_file("onnx")[1])
    onnx.checker.check_model(model)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert not {node.op_type for node in model.graph.node} & {"ScatterND", "ScatterElements", "Loop", "If", "NonZero"}


@pytest.mark.parametrize("form", FORMS)
def test_an_exported_file_says_what_it_is_without_its_runtime(form):
    checkpoint, path = exported_file(form)
    said = read_description(path)
    assert (said.config, said.classes, said.threshold) == (checkpoint.config, checkpoint.classes, checkpoint.threshold)
    assert said.provenance["by"] == "test"
    assert said.provenance["export"]["format"] == form
    assert said.provenance["export"]["checkpoint"] == "small.safetensors"


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_or_foreign_or_missing_file_is_refused_by_name(form, tmp_path):
    content = exported_file(form)[1].read_bytes()
    path = tmp_path / exported_file(form)[1].name
    for damaged in (b"", b"no network", content[: len(content) // 2], content[:-10]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=path.name):
            read_description(path)
    with pytest.raises(CheckpointError, match="lost"):
        read_description(tmp_path / f"lost{path.suffix}")


def test_the_command_writes_the_file_and_ends_with_its_path(tmp_path, capsys):
    out = tmp_path / "small.pt2"
    given = ["--checkpoint", str(small_checkpoint()), "--format", "torch_export", "--out", str(out)]
    assert cli.main(["export", *given]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"wrote {out}"
    assert read_description(out).provenance["export"]["checkpoint"] == "small.safetensors"


@pytest.mark.parametrize(
    "given, said",
    [
        (["--format", "onnx", "--out", "x.pt2"], "has the ending .onnx; name it x.onnx"),
        (["--checkpoint", "lost.safetensors", "--format", "onnx", "--out", "x.onnx"], "lost.safetensors"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(given, said, capsys):
    assert cli.main(["export", "--checkpoint", str(small_checkpoint()), *given]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
