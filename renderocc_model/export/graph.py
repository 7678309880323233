"""The network as one function of plain tensors, made of operators that every runtime has.

Runtimes differ in voxel pooling. Scattered additions into one place do not work everywhere: TensorRT's parser drops
ScatterND's reduction (onnx/onnx-tensorrt, issue 957). onnxruntime's ScatterND loses additions when it has several CPU
threads (in 1.32, up to 708 of the 800 into each cell), and its ScatterElements works on one thread and takes longer
than half the network. So each cell's points are listed beforehand, in rows of equal length. The graph only gathers and
sums, always in the same order. The lists are inputs: other cameras need no new export.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from renderocc_model.field.field import mean_of_layers
from renderocc_model.images.preprocessing import IMAGE_MEAN, IMAGE_STD
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.fusion import EarlierFrame, no_earlier_frame
from renderocc_model.network.lift import LiftGeometry
from renderocc_model.network.network import OccupancyNetwork

__all__ = [
    "ROW",
    "ExportedFunction",
    "FrameArguments",
    "PoolingTables",
    "input_names",
    "output_names",
    "pooling_tables",
]

ROW = 8  # points in a row; with `tiny` and six cameras 168,000 points are 36,000 rows, and a cell in ten has several


@dataclass(frozen=True)
class PoolingTables:
    """Which frustum points are summed into which cell of the pooled volume.

    Attributes:
        depth_index: (R, ROW) int64, points, counted through (N, D, h, w); N*D*h*w, a weight of zero, where a row is
            not full. All points of a row are of one cell.
        pixel_index: (R, ROW) int64, the pixel of each of these points, counted through (N, h, w).
        crowded: (Q, M) int64, for each cell of more than one row its rows; R, a row of zeros, where it has fewer.
        cell_row: (cells,) int64, where the sum of a cell is: r < R for row r, R for no points, R + 1 + q for row q of
            `crowded`.
    """

    depth_index: Tensor
    pixel_index: Tensor
    crowded: Tensor
    cell_row: Tensor

    def in_order(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As four of `input_names`."""
        return self.depth_index, self.pixel_index, self.crowded, self.cell_row


def pooling_tables(geometry: LiftGeometry, cells: int) -> PoolingTables:
    """The tables of one frame (B = 1), on the geometry's device; no size is below 2, which torch.export asks for.

    Args:
        geometry: from `Frustums.place`.
        cells: of the pooled volume.
    """
    index = geometry.voxel_index[0]
    device, (bins, pixels) = index.device, (index.shape[1], index.shape[2] * index.shape[3])
    flat = index.flatten()
    kept = torch.nonzero(flat >= 0).squeeze(1)
    cell, order = torch.sort(flat[kept].to(torch.int32), stable=True)
    cell, point = cell.long(), kept[order]
    counts = torch.bincount(cell, minlength=cells)
    rows_of_cell = (counts + (ROW - 1)) // ROW
    row_end = rows_of_cell.cumsum(0)
    first_row = row_end - rows_of_cell
    rank = torch.arange(len(point), device=device) - (counts.cumsum(0) - counts)[cell]
    place = first_row[cell] * ROW + rank  # in the flattened rows, where the points of a cell are next to each other
    rows = max(int(row_end[-1]), 2)
    depth_index = torch.full((rows * ROW,), flat.numel(), device=device)
    pixel_index = torch.zeros(rows * ROW, dtype=torch.int64, device=device)
    depth_index[place] = point
    pixel_index[place] = torch.div(point, bins * pixels, rounding_mode="floor") * pixels + point % pixels

    crowded = torch.nonzero(rows_of_cell > 1).squeeze(1)
    step = torch.arange(max(int(rows_of_cell.max()), 2), device=device)
    listed = torch.where(step < rows_of_cell[crowded, None], first_row[crowded, None] + step, rows)
    listed = torch.cat([listed, listed.new_full((max(2 - len(crowded), 0), len(step)), rows)])
    cell_row = torch.where(counts > 0, first_row, rows)
    cell_row[crowded] = rows + 1 + torch.arange(len(crowded), device=device)
    return PoolingTables(depth_index.view(rows, ROW), pixel_index.view(rows, ROW), listed, cell_row)


def input_names(config: ModelConfig) -> tuple[str, ...]:
    """The graph's inputs, in the order of `ExportedFunction.forward`."""
    joins = ("earlier", "earlier_mask") if config.fusion.enabled else ()
    if config.fusion.stereo.channels:
        joins = (*joins, "earlier_keys", "earlier_pixels")
    return ("views", "cameras", "depth_index", "pixel_index", "crowded", "cell_row", *joins)


def output_names(config: ModelConfig) -> tuple[str, ...]:
    """The graph's outputs; a model whose voxels have layers also gives their density, and one that joins frames what
    is kept for a later one."""
    layers = ("layers",) if config.heads.density_layers > 1 else ()
    kept = ("volume",) if config.fusion.enabled else ()
    return ("density", "semantics", *layers, *kept, *(("keys",) if config.fusion.stereo.channels else ()))


class FrameArguments:
    """Makes the graph's inputs of a frame. The pooling tables are kept for as long as no camera moves.

    `Frustums.place` then returns the same geometry object.

    Args:
        config: of the exported network.
    """

    def __init__(self, config: ModelConfig) -> None:
        x, y, slices = config.pooled_shape
        self._config, self._cells = config, x * y * slices
        self._last: tuple[LiftGeometry, PoolingTables] | None = None

    def __call__(
        self, pictures: Tensor, geometry: LiftGeometry, earlier: EarlierFrame | None = None
    ) -> dict[str, Tensor]:
        """{name: tensor}, in the order of `input_names`, on the device of the pictures.

        Args:
            pictures: (N, H, W, 3) uint8.
            geometry: of one frame.
            earlier: an earlier frame (B = 1), for models that join one; None: there is none.
        """
        if self._last is None or self._last[0] is not geometry:
            self._last = geometry, pooling_tables(geometry, self._cells)
        given = [pictures, geometry.cameras[0], *self._last[1].in_order()]
        if self._config.fusion.enabled:
            shapes = (1, *self._config.volume_shape), self._config.earlier_keys_shape(len(pictures))
            given += (earlier or no_earlier_frame(*shapes, geometry.cameras)).tensors()
        return dict(zip(input_names(self._config), given, strict=True))


class ExportedFunction(nn.Module):
    """What an exported file computes: density and semantics from camera views and their geometry.

    Of a model that joins frames it also gives what is kept for a later one. Moving it by the ego motion
    (`network.fusion.placed`) is left to the caller.
    """

    def __init__(self, network: OccupancyNetwork) -> None:
        super().__init__()
        self.network = network
        mean, std = (torch.tensor(values, dtype=torch.float64).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        self.register_buffer("scale", (1 / (255 * std)).float())
        self.register_buffer("offset", (-mean / std).float())

    def forward(
        self,
        views: Tensor,
        cameras: Tensor,
        depth_index: Tensor,
        pixel_index: Tensor,
        crowded: Tensor,
        cell_row: Tensor,
        earlier: Tensor | None = None,
        earlier_mask: Tensor | None = None,
        earlier_keys: Tensor | None = None,
        earlier_pixels: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Predict one frame.

        Args:
            views: (N, H, W, 3) uint8 RGB, pinhole views as `Preprocessor` makes them.
            cameras: (N, CAMERA_PARAMETERS) float32, `LiftGeometry.cameras` of the frame.
            depth_index, pixel_index, crowded, cell_row: `pooling_tables` of the frame.
            earlier, earlier_mask, earlier_keys, earlier_pixels: `EarlierFrame` (B = 1), of a model that joins frames,
                the last two of one with stereo; zeros where there is none.
        Returns:
            density (X, Y, Z) float32, 1/m, and semantics (X, Y, Z, C) float32, logits of the classes other than free;
            of a model with L > 1 layers in a voxel also their density (X, Y, Z * L) float32, the lowest first, whose
            mean is `density`; of one that joins frames this frame's volume, (1, *ModelConfig.volume_shape) float32, and
            of one with stereo its keys, ModelConfig.keys_shape(N) float32.
        """
        images = views.float().movedim(-1, -3) * self.scale + self.offset
        frame = None
        if earlier is not None and earlier_mask is not None:
            frame = EarlierFrame(earlier, earlier_mask, earlier_keys, earlier_pixels)
        joined = None if frame is None else frame.images
        found = self.network.image_features(images, cameras, joined, backend="reference")
        pooled = self.pool(found.depth, found.context, depth_index, pixel_index, crowded, cell_row)
        volume = self.network.join(pooled, frame)
        density, semantics = self.network.decode(volume)
        count = self.network.config.heads.density_layers
        met = () if count == 1 else (density[0],)
        kept = self.network.kept(pooled, volume, found.keys)
        return mean_of_layers(density[0], count), semantics[0], *met, *kept

    def pool(
        self,
        depth: Tensor,
        context: Tensor,
        depth_index: Tensor,
        pixel_index: Tensor,
        crowded: Tensor,
        cell_row: Tensor,
    ) -> Tensor:
        """`OccupancyNetwork.pool` of one frame, by `PoolingTables`."""
        channels = context.shape[1]
        weights = torch.cat([depth.reshape(-1), depth.new_zeros(1)])
        weights = weights.index_select(0, depth_index.reshape(-1)).view(-1, 1, ROW)
        rows = context.permute(0, 2, 3, 1).reshape(-1, channels)
        rows = rows.index_select(0, pixel_index.reshape(-1)).view(-1, ROW, channels)
        sums = torch.cat([torch.bmm(weights, rows).squeeze(1), context.new_zeros(1, channels)])
        joined = sums.index_select(0, crowded.reshape(-1)).view(*crowded.shape, channels).sum(dim=1)
        pooled = torch.cat([sums, joined]).index_select(0, cell_row)
        return _as_volume(pooled, self.network.config)


def _as_volume(pooled: Tensor, config: ModelConfig) -> Tensor:
    """(1, S*C, X, Y) over the ground plane or (1, C, X, Y, Z) from (cells, C)."""
    x, y, slices = config.pooled_shape
    if config.encoder.kind == "channel_to_height":
        return pooled.view(1, x, y, -1).permute(0, 3, 1, 2)
    return pooled.view(1, x, y, slices, -1).permute(0, 4, 1, 2, 3)
