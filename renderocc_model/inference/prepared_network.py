"""A network prepared for inference: norms folded, weights in the type it computes in, classes only of voxels asked
for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..field.field import SemanticDensityField, mean_of_layers
from ..geometry.grid import VoxelGrid
from ..images.preprocessing import scaled
from ..network.checkpoint import CheckpointError
from ..network.fusion import EarlierFrame
from ..network.network import OccupancyNetwork
from ..ops.voxel_pooling import PoolingPlan, pool
from .folding import folded_for_inference
from .precision import PRECISIONS, autocast

__all__ = ["InferenceNetwork", "Prediction"]

_FEWEST_ROWS = 256  # with fewer rows the work takes as long


@dataclass(frozen=True, eq=False)
class Prediction:
    """A network's output for one frame: density everywhere, and classes of the voxels that are asked for.

    Attributes:
        density: (X, Y, Z) float32 >= 0, 1/m.
        voxels: (X, Y, Z, K), what class logits are made from: features, or the logits themselves.
        head: computes float32 logits (..., C) from any of them, (..., K).
        kept: the pooled or joined volume (1, C, X, Y[, Z]) and, of networks with stereo, the images' keys (N, K, h, w):
            arguments of `KeptFrame.current`. Nothing of networks that join no frames.
        layers: (X, Y, Z * L) float32, densities of the L layers of each voxel, whose mean `density` is; None for one.
    """

    density: Tensor
    voxels: Tensor
    head: Callable[[Tensor], Tensor]
    kept: tuple[Tensor, ...] = ()
    layers: Tensor | None = None

    @staticmethod
    def of_layers(
        layers: Tensor, count: int, voxels: Tensor, head: Callable[[Tensor], Tensor], kept: tuple[Tensor, ...]
    ) -> Prediction:
        """The prediction with a network's density (X, Y, Z * count)."""
        return Prediction(mean_of_layers(layers, count), voxels, head, kept, None if count == 1 else layers)

    @property
    def met(self) -> Tensor:
        """What rays meet, (X, Y, Z * L): the density of the layers; without them that of the voxels."""
        return self.density if self.layers is None else self.layers

    @property
    def layer_count(self) -> int:
        """L, densities of a voxel."""
        return self.met.shape[2] // self.density.shape[2]

    def logits_at(self, rows: Tensor) -> Tensor:
        """Class logits (M, C) of the voxels with these flat indices (M,).

        On a CPU the number of rows is padded to a power of two. oneDNN compiles a multiplication for each number of
        rows that it meets, and keeps a thousand of them, some 300 kB each; on a moving vehicle this number changes in
        every frame.
        """
        table = self.voxels.reshape(-1, self.voxels.shape[-1])
        if rows.device.type != "cpu":
            return self.head(table.index_select(0, rows))
        steady = rows.new_zeros(max(_FEWEST_ROWS, 1 << (len(rows) - 1).bit_length()))
        steady[: len(rows)] = rows
        return self.head(table.index_select(0, steady))[: len(rows)]

    @torch.inference_mode()
    def field(self, grid: VoxelGrid) -> SemanticDensityField:
        """Density and the logits of all voxels; the logits are computed now."""
        return SemanticDensityField(grid, self.density, self.head(self.voxels), self.layers)

    def detached(self) -> Prediction:
        """A copy in its own memory."""
        kept = tuple(part.clone() for part in self.kept)
        layers = None if self.layers is None else self.layers.clone()
        return Prediction(self.density.clone(), self.voxels.clone(), self.head, kept, layers)


class InferenceNetwork:
    """A copy of a network that computes the same, faster.

    - Batch norms are folded into convolutions (`folding`).
    - Weights are converted to the precision's type once, not in every frame as by autocast. Softmax and softplus are
      computed in float32 as before. A network with layer norms (transformers) stays under autocast: the sums along its
      residual connections need float32.
    - From bytes to the backbone's own normalisation is one multiplication and one addition.
    - Class logits are computed only for the voxels that are asked for.

    Args:
        network: is not changed.
        device, precision: where it computes, and a key of PRECISIONS.
    Raises:
        CheckpointError: a weight does not fit into the precision's type.
    """

    def __init__(self, network: OccupancyNetwork, device: torch.device, precision: str) -> None:
        self.config = network.config
        self._network = network = folded_for_inference(network).to(device)
        self._device, self._precision = device, precision
        self._autocasts = precision != "float32" and any(isinstance(part, nn.LayerNorm) for part in network.modules())
        self.dtype = torch.float32 if self._autocasts else PRECISIONS[precision]
        if self.dtype != torch.float32:
            _convert(network, self.dtype)
        backbone = network.backbone
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (backbone.mean, backbone.std))
        self._scale = (1 / (255 * std)).float().view(3, 1, 1).to(device)
        self._offset = (-mean / std).float().view(3, 1, 1).to(device)

    @property
    def joins_frames(self) -> bool:
        """Whether an earlier frame is used."""
        return self._network.fusion is not None

    def predict(
        self, pictures: Tensor, cameras: Tensor, plan: PoolingPlan, earlier: EarlierFrame | None = None
    ) -> Prediction:
        """Predict one frame.

        Args:
            pictures: (N, H, W, 3) uint8 RGB on the device.
            cameras: (N, CAMERA_PARAMETERS) of `LiftGeometry`.
            plan: the pooling plan of their points.
            earlier: an earlier frame, placed for these cameras, if the network joins one and there is one.
        """
        network = self._network
        with self._context():
            maps = network.backbone.maps(self._images(pictures))
            found = network.features_of_maps(maps, cameras, None if earlier is None else earlier.images)
            pooled = network.volume_of(pool(found.depth, found.context, plan), 1)
            joined = network.join(pooled, earlier)
            voxels = network.voxels(network.encoder(joined))[0]
            density = network.heads.density_of(voxels)
        count = self.config.heads.density_layers
        return Prediction.of_layers(density, count, voxels, self._logits, network.kept(pooled, joined, found.keys))

    def _images(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W), channels-last as the bytes are, normalised as the backbone's weights want it."""
        return scaled(pictures, self._scale, self._offset, self.dtype)

    def _logits(self, voxels: Tensor) -> Tensor:
        with self._context():
            return self._network.heads.logits_of(voxels)

    def _context(self) -> AbstractContextManager:
        return autocast(self._device, self._precision) if self._autocasts else nullcontext()


def _convert(network: nn.Module, dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    for name, weight in network.named_parameters():
        largest = float(weight.abs().max())
        if most < largest < float("inf"):
            raise CheckpointError(f"{name} has {largest:.3g}, too large for {dtype}; use precision float32")
    network.to(dtype)
