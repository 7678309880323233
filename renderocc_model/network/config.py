"""What a network is made of: every choice that changes its shape, as data."""

from __future__ import annotations

from renderocc_model.base.config import configuration, setting
from renderocc_model.geometry.grid import VoxelGrid

__all__ = [
    "BackboneConfig",
    "DepthConfig",
    "EncoderConfig",
    "FusionConfig",
    "HeadsConfig",
    "HeightConfig",
    "ImageConfig",
    "LiftConfig",
    "ModelConfig",
    "NeckConfig",
    "StereoConfig",
]

MAX_VOXELS = 1 << 26  # 67 million, 100 times the Occ3D grid


@configuration
class ImageConfig:
    """Size of the pinhole views the network is given; all cameras are resampled to it."""

    height: int = setting(128, "height of the network's view, pixels", minimum=32, maximum=4096)
    width: int = setting(352, "width of the network's view, pixels", minimum=32, maximum=8192)


@configuration
class BackboneConfig:
    """The image network, from timm."""

    name: str = setting("tf_efficientnet_lite0", "name of a timm network that gives feature maps")
    levels: tuple[int, ...] = setting(
        (2, 3, 4), "which of its feature maps are used, finest first", minimum=0, maximum=8
    )
    stride: int = setting(8, "image pixels for one pixel of the finest of these maps", choices=(4, 8, 16, 32))
    pretrained: str = setting(
        "none", "initial weights: none, timm (from its hub), a weights file's path, or package:NAME that holds one"
    )
    drop_path: float = setting(
        0.0, "share of residual branches dropped in training (stochastic depth)", minimum=0.0, maximum=0.9
    )
    recompute: bool = setting(False, "recompute activations in the backward pass: less memory, a third more time")

    def check(self) -> None:
        if not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels is {list(self.levels)}; give one or more different levels, finest first")


@configuration
class NeckConfig:
    """Feature pyramid that joins the backbone's maps at the finest of them."""

    channels: int = setting(64, "channels of the joined feature map", minimum=1, maximum=2048)


@configuration
class DepthConfig:
    """Bins of the per-pixel depth distribution; depth is z-depth, along the optical axis."""

    minimum: float = setting(1.0, "near edge of the first bin, metres", minimum=0.01, maximum=1000.0)
    maximum: float = setting(28.0, "far edge of the last bin, metres", minimum=0.02, maximum=10000.0)
    count: int = setting(64, "number of bins", minimum=2, maximum=1024)
    spacing: str = setting("linear", "bins of equal length, or of equal ratio", choices=("linear", "log"))

    def check(self) -> None:
        if not self.maximum > self.minimum:
            raise ValueError(f"the bins run from {self.minimum} m to {self.maximum} m; make the maximum the larger one")


@configuration
class HeightConfig:
    """Heights above the base frame's origin that a pixel may show, beside the bins of its depth."""

    count: int = setting(0, "number of heights; 0 predicts none", minimum=0, maximum=256)
    minimum: float = setting(-1.2, "lowest, metres; what lies deeper counts as this", minimum=-100.0, maximum=100.0)
    maximum: float = setting(5.6, "highest, metres; what lies higher counts as this", minimum=-100.0, maximum=100.0)

    def check(self) -> None:
        if self.count == 1 or not self.maximum > self.minimum:
            raise ValueError(
                f"{self.count} heights from {self.minimum} to {self.maximum} m; give none or at least two, lowest first"
            )


@configuration
class LiftConfig:
    """From image features to the pooled volume (Lift, Splat, Shoot; indices known beforehand as in BEVPoolv2)."""

    context_channels: int = setting(32, "channels carried along each pixel's ray", minimum=1, maximum=1024)
    hidden_channels: int = setting(64, "channels of the layers that predict depth and context", minimum=1, maximum=2048)
    blocks: int = setting(1, "residual blocks among these layers", minimum=1, maximum=64)
    subpixels: int = setting(
        1, "a feature pixel is lifted as subpixels x subpixels places, each with its own ray, depth and context", 1, 8
    )
    height_slices: int = setting(
        4, "slabs the pooled volume has in z; they must divide the grid's voxels in z", minimum=1, maximum=256
    )
    depth: DepthConfig = setting(DepthConfig(), "depth bins")
    heights: HeightConfig = setting(
        HeightConfig(), "heights, whose logits are added to those of the depths at which a pixel's ray has them"
    )
    rays: bool = setting(False, "tell the layers each pixel's ray: slope, distance of level ground, place in the view")


@configuration
class StereoConfig:
    """Comparison of each camera's image with those of the earlier frame, at each depth of a pixel."""

    channels: int = setting(0, "channels of what is compared; 0 compares nothing", minimum=0, maximum=1024)
    groups: int = setting(4, "similarities for each depth, each of an equal part of the channels", 1, 256)
    views: int = setting(
        3, "earlier images in which a pixel is looked for, those first that look most in its camera's direction", 1, 16
    )

    def check(self) -> None:
        if self.channels % self.groups:
            raise ValueError(
                f"groups is {self.groups}, which does not divide the {self.channels} channels; choose a divisor"
            )


@configuration
class FusionConfig:
    """Use of an earlier frame: its pooled volume, placed by ego motion, and its images."""

    enabled: bool = setting(False, "join an earlier frame's volume to the current one")
    interval: float = setting(
        0.5, "time between the two frames [s]; the nearest that there is is taken", minimum=0.05, maximum=5.0
    )
    frames: int = setting(
        1,
        "earlier frames whose volumes are joined one after the other, each with what those before it were joined to; "
        "1: the last one alone",
        minimum=1,
        maximum=64,
    )
    stereo: StereoConfig = setting(StereoConfig(), "comparison of the images of the two frames, for their depth")

    @property
    def earlier_frames(self) -> int:
        """How many earlier frames a frame is predicted with where they do not come by themselves, one by one."""
        return self.frames if self.enabled else 0

    @property
    def recurrent(self) -> bool:
        """Whether the volume that is kept of a frame has been joined with those before it."""
        return self.frames > 1

    def check(self) -> None:
        if self.stereo.channels and not self.enabled:
            raise ValueError(
                f"stereo.channels is {self.stereo.channels} but enabled is false: there is no earlier frame to compare "
                "with; set enabled to true"
            )


@configuration
class EncoderConfig:
    """The volume encoder: a residual network of several scales whose results are joined at the finest."""

    kind: str = setting(
        "channel_to_height",
        "2D convolutions over the ground plane whose channels become heights, or 3D convolutions",
        choices=("channel_to_height", "convolutions_3d"),
    )
    channels: tuple[int, ...] = setting(
        (64, 96, 128), "channels of each scale, each half the size of the one before", minimum=1, maximum=2048
    )
    blocks: tuple[int, ...] = setting((1, 2, 2), "residual blocks of each scale", minimum=0, maximum=64)
    out_channels: int = setting(64, "channels of the joined result", minimum=1, maximum=2048)

    def check(self) -> None:
        if not self.channels or len(self.channels) != len(self.blocks):
            raise ValueError(
                f"channels has {len(self.channels)} scales and blocks {len(self.blocks)}; give as many of both"
            )


@configuration
class HeadsConfig:
    """From encoder features to density and class logits, voxel by voxel."""

    voxel_channels: int = setting(16, "channels of one voxel before the heads", minimum=1, maximum=512)
    hidden_channels: int = setting(32, "hidden channels of the two heads", minimum=1, maximum=1024)
    initial_density: float = setting(
        0.1,
        "density an untrained network gives, 1/m: 0.1 lets a third of the light through 11 m",
        minimum=1e-6,
        maximum=100.0,
    )
    density_layers: int = setting(
        1,
        "densities of a voxel, one above the other, which a rendered ray meets: surfaces then have heights within "
        "their voxels. Whether a voxel is occupied is told by their mean",
        minimum=1,
        maximum=16,
    )


@configuration
class ModelConfig:
    """Everything the network is built from; `build_network(config)` builds it."""

    name: str = setting("custom", "what this variant is called, in logs and checkpoints")
    class_count: int = setting(17, "classes other than free: the semantic logits of a voxel", minimum=1, maximum=254)
    grid: VoxelGrid = setting(VoxelGrid((-20.0, -20.0, -1.0), (20.0, 20.0, 5.4), 0.4), "the volume that is predicted")
    images: ImageConfig = setting(ImageConfig(), "the views it is given")
    backbone: BackboneConfig = setting(BackboneConfig(), "the image network")
    neck: NeckConfig = setting(NeckConfig(), "the feature pyramid")
    lift: LiftConfig = setting(LiftConfig(), "depth, context and pooling")
    fusion: FusionConfig = setting(FusionConfig(), "the previous frame")
    encoder: EncoderConfig = setting(EncoderConfig(), "the volume encoder")
    heads: HeadsConfig = setting(HeadsConfig(), "density and semantics")

    @property
    def pooled_shape(self) -> tuple[int, int, int]:
        """Cells of the pooled volume along (x, y, z)."""
        x, y, _ = self.grid.shape
        return x, y, self.lift.height_slices

    @property
    def volume_shape(self) -> tuple[int, ...]:
        """(C, X, Y) of the pooled features over the ground plane, or (C, X, Y, Z)."""
        x, y, slices = self.pooled_shape
        channels = self.lift.context_channels
        return (slices * channels, x, y) if self.encoder.kind == "channel_to_height" else (channels, x, y, slices)

    def keys_shape(self, cameras: int) -> tuple[int, int, int, int] | None:
        """(cameras, K, h, w) of what is kept of images to be compared with later ones; None without stereo."""
        channels = self.fusion.stereo.channels
        return (cameras, channels, *self.feature_shape) if channels else None

    def earlier_keys_shape(self, cameras: int) -> tuple[int, int, int, int, int] | None:
        """(cameras, V, K, h, w) of what images are compared with; None without stereo."""
        shape = self.keys_shape(cameras)
        return None if shape is None else (shape[0], self.fusion.stereo.views, *shape[1:])

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Height and width of the feature maps."""
        return self.images.height // self.backbone.stride, self.images.width // self.backbone.stride

    @property
    def lifted_shape(self) -> tuple[int, int]:
        """Height and width of the depths and contexts that are lifted: `lift.subpixels` places a feature pixel."""
        height, width = self.feature_shape
        return height * self.lift.subpixels, width * self.lift.subpixels

    @property
    def lifted_stride(self) -> int:
        """Image pixels between two of these places."""
        return self.backbone.stride // self.lift.subpixels

    def check(self) -> None:
        heights = self.grid.shape[2]
        slices = self.lift.height_slices
        if heights % slices:
            raise ValueError(
                f"lift.height_slices is {slices}, which does not divide the grid's {heights} voxels in z; "
                f"choose a divisor"
            )
        if self.backbone.stride % self.lift.subpixels:
            raise ValueError(
                f"lift.subpixels is {self.lift.subpixels}, which does not divide backbone.stride "
                f"{self.backbone.stride}; choose a divisor"
            )
        if self.encoder.kind == "convolutions_3d" and slices != heights:
            raise ValueError(
                f"lift.height_slices is {slices}, but encoder.kind convolutions_3d works on every voxel; "
                f"set it to {heights}"
            )
        if self.grid.size > MAX_VOXELS:
            raise ValueError(
                f"the grid has {self.grid.size} voxels, more than the {MAX_VOXELS} this package is made for; "
                f"use larger voxels or a smaller volume"
            )
