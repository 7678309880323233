"""The occupancy network: camera images in, density and semantics of a voxel grid out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from renderocc_model.network.backbone import ImageBackbone
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.encoder import VolumeEncoder
from renderocc_model.network.fusion import EarlierFrame, KeptFrame, VolumeFusion, placed
from renderocc_model.network.heads import VoxelFeatures, VoxelHeads
from renderocc_model.network.lift import CAMERA_PARAMETERS, DepthContextHead, LiftGeometry, depths_of_bins
from renderocc_model.network.neck import FeaturePyramid
from renderocc_model.network.stereo import EarlierImages, TemporalStereo
from renderocc_model.ops import voxel_pooling

__all__ = ["ImageFeatures", "NetworkOutput", "OccupancyNetwork", "build_network"]


@dataclass(frozen=True)
class NetworkOutput:
    """The network's output for a batch of frames.

    Attributes:
        density: (B, X, Y, Z * L) >= 0, 1/m, of the L = `heads.density_layers` layers of each voxel, the lowest first;
            `SemanticDensityField.of_layers` takes it.
        semantics: (B, X, Y, Z, C) logits of the classes other than free.
        depth_distribution: (B*N, D, H, W), H and W of `ModelConfig.lifted_shape`; sums to one over D.
        kept: what is given back as `previous` of a later frame after `kept.moved(...)`; None where the model has no
            fusion.
    """

    density: Tensor
    semantics: Tensor
    depth_distribution: Tensor
    kept: KeptFrame | None


class ImageFeatures(NamedTuple):
    """What the network makes of M images.

    Attributes:
        depth: (M, D, H, W), sums to one over D.
        context: (M, C, H, W).
        keys: (M, K, h, w), what later images are compared with; None where the model has no stereo.
    """

    depth: Tensor
    context: Tensor
    keys: Tensor | None


class OccupancyNetwork(nn.Module):
    """images -> features -> depth and context -> pooled volume -> (fusion) -> encoder -> density and semantics.

    The stages `image_features`, `pool`, `join` and `decode` can be run (and exported) by themselves; `forward` is all
    of them.
    """

    def __init__(self, config: ModelConfig, pretrained: bool = False) -> None:
        super().__init__()
        self.config = config
        dimensions = 2 if config.encoder.kind == "channel_to_height" else 3
        pooled = config.lift.context_channels * (config.lift.height_slices if dimensions == 2 else 1)
        self.backbone = ImageBackbone(config.backbone, config.images, pretrained)
        self.neck = FeaturePyramid(2, self.backbone.channels, config.neck.channels)
        self.lift = DepthContextHead(config.neck.channels, config.lift)
        stereo = config.fusion.stereo
        self.stereo = TemporalStereo(self.backbone.channels[0], stereo) if stereo.channels else None
        self.fusion = VolumeFusion(dimensions, pooled) if config.fusion.enabled else None
        self.encoder = VolumeEncoder(dimensions, pooled, config.encoder)
        self.voxels = VoxelFeatures(
            dimensions, config.encoder.out_channels, config.grid.shape[2], config.heads.voxel_channels
        )
        self.heads = VoxelHeads(config.heads, config.class_count)

    def forward(
        self,
        images: Tensor,
        geometry: LiftGeometry,
        previous: KeptFrame | None = None,
        depth_from_volume: bool = True,
    ) -> NetworkOutput:
        """Predict the field of B frames with N cameras each.

        Args:
            images: (B, N, 3, H, W), normalised (`images.preprocessing.normalise`). What an absent camera shows does
                not matter.
            geometry: where the feature pixels go, from `Frustums.place`.
            previous: what was kept of the frame before, moved to now; None at the first frame or after a reset.
            depth_from_volume: false: no gradient of density and semantics goes back to the depth distribution.
        Raises:
            ValueError: a shape does not fit the configuration or another argument, or `previous` is given to a model
                without fusion.
        """
        self._check(images, geometry, previous)
        earlier = None if previous is None else self.earlier(previous, geometry)
        found = self.image_features(
            images.flatten(0, 1), geometry.cameras.flatten(0, 1), None if earlier is None else earlier.images
        )
        depth = found.depth if depth_from_volume else found.depth.detach()
        pooled = self.pool(depth, found.context, geometry)
        joined = self.join(pooled, earlier)
        density, semantics = self.decode(joined)
        kept = self.kept(pooled, joined, found.keys)
        return NetworkOutput(
            density, semantics, found.depth, KeptFrame.current(*kept).with_cameras(geometry) if kept else None
        )

    def earlier(self, kept: KeptFrame, geometry: LiftGeometry) -> EarlierFrame:
        """What was kept of an earlier frame and moved to now, for a frame of this geometry."""
        return placed(kept, self.config.grid, geometry, self.config.fusion.stereo.views)

    def image_features(
        self, images: Tensor, cameras: Tensor, earlier: EarlierImages | None = None, backend: str = "auto"
    ) -> ImageFeatures:
        """What is pooled of M images.

        Args:
            images: (M, 3, H, W), normalised.
            cameras: (M, CAMERA_PARAMETERS).
            earlier: earlier images of the cameras, for models with stereo; None: there are none.
            backend: of the operators.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        return self.features_of_maps(self.backbone(images), cameras, earlier, backend)

    def features_of_maps(
        self, maps: list[Tensor], cameras: Tensor, earlier: EarlierImages | None = None, backend: str = "auto"
    ) -> ImageFeatures:
        """`image_features` of what the backbone gives."""
        logits, context = self.lift(self.neck(maps), cameras, backend)
        keys = None if self.stereo is None else self.stereo.keys_of(maps[0])
        return ImageFeatures(self.depth_of(logits, keys, earlier, backend), context, keys)

    def depth_of(
        self, logits: Tensor, keys: Tensor | None, earlier: EarlierImages | None = None, backend: str = "auto"
    ) -> Tensor:
        """Depth (M, D, H, W) from the logits of single images and, in models with stereo, from earlier images."""
        if self.stereo is not None and keys is not None:
            depths = depths_of_bins(self.config.lift.depth, logits)
            compared = self.stereo(keys, earlier, depths, backend).to(logits.dtype)
            if self.config.lift.subpixels > 1:
                compared = F.interpolate(compared, scale_factor=self.config.lift.subpixels, mode="nearest")
            logits = logits + compared
        return F.softmax(logits, dim=1)

    def pool(self, depth: Tensor, context: Tensor, geometry: LiftGeometry) -> Tensor:
        """Pooled volume, (B, S*C, X, Y) over the ground plane or (B, C, X, Y, Z); memory order is channels last."""
        plan = geometry.plan(math.prod(self.config.pooled_shape))
        return self.volume_of(voxel_pooling.pool(depth, context, plan), geometry.voxel_index.shape[0])

    def volume_of(self, pooled: Tensor, batch: int) -> Tensor:
        """What was pooled into cells, (B*cells, C), as a volume of the shape that `pool` gives; no copy."""
        x, y, slices = self.config.pooled_shape
        if self.config.encoder.kind == "channel_to_height":
            return pooled.view(batch, x, y, -1).permute(0, 3, 1, 2)
        return pooled.view(batch, x, y, slices, -1).permute(0, 4, 1, 2, 3)

    def join(self, pooled: Tensor, earlier: EarlierFrame | None = None) -> Tensor:
        """The pooled volume joined with an earlier frame's; the same tensor in models without fusion."""
        return pooled if self.fusion is None else self.fusion(pooled, earlier)

    def decode(self, joined: Tensor) -> tuple[Tensor, Tensor]:
        """Density (B, X, Y, Z * L) and class logits (B, X, Y, Z, C) from the joined volume."""
        return self.heads(self.voxels(self.encoder(joined)))

    def kept(self, pooled: Tensor, joined: Tensor, keys: Tensor | None) -> tuple[Tensor, ...]:
        """What a later frame is joined with, the first arguments of `KeptFrame.current`; nothing without fusion."""
        if self.fusion is None:
            return ()
        volume = joined if self.config.fusion.recurrent else pooled
        return (volume,) if keys is None else (volume, keys)

    def _check(self, images: Tensor, geometry: LiftGeometry, previous: KeptFrame | None) -> None:
        size = self.config.images
        if images.ndim != 5 or images.shape[2:] != (3, size.height, size.width):
            raise ValueError(
                f"network: images are {tuple(images.shape)}; expected (frames, cameras, 3, {size.height}, {size.width})"
            )
        expected = (*images.shape[:2], self.config.lift.depth.count, *self.config.lifted_shape)
        if tuple(geometry.voxel_index.shape) != expected:
            raise ValueError(
                f"network: voxel_index is {tuple(geometry.voxel_index.shape)}; expected {expected} for images "
                f"{tuple(images.shape)}; make the geometry with this model's configuration and the same cameras"
            )
        if tuple(geometry.cameras.shape) != (*images.shape[:2], CAMERA_PARAMETERS):
            raise ValueError(
                f"network: geometry.cameras is {tuple(geometry.cameras.shape)}; "
                f"expected {(*images.shape[:2], CAMERA_PARAMETERS)}"
            )
        if previous is not None and previous.volume.shape[0] != images.shape[0]:
            raise ValueError(
                f"network: the previous frame is a batch of {previous.volume.shape[0]}, images of {images.shape[0]}; "
                "forget the previous frame when the batch changes"
            )
        if previous is not None and self.stereo is not None and previous.keys is None:
            raise ValueError("network: the previous frame has no keys; give what a network with stereo kept")
        if previous is not None and self.fusion is None:
            raise ValueError(
                "network: a previous frame was given, but fusion.enabled is false in this model; give none"
            )


def build_network(config: ModelConfig, pretrained: bool = False) -> OccupancyNetwork:
    """The network of a configuration, on the CPU, in training mode, weights random.

    Args:
        pretrained: start the backbone from what config.backbone.pretrained names; for training from the beginning.
    Raises:
        ValueError: the backbone, its feature maps, the image size or the weights do not fit together.
    """
    network = OccupancyNetwork(config, pretrained)
    # Convolutions are fastest channels-last, on the CPU as on tensor cores, and pooling delivers its result that way.
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)
    return network
