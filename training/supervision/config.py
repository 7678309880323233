"""What the network learns from, and how much each part of it counts."""

from __future__ import annotations

from renderocc_model.base.config import configuration, setting
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid

from .queries import QueryConfig

__all__ = ["WAYS", "LabelVoxelConfig", "LossWeights", "SupervisionConfig", "TerminationConfig"]

WAYS = ("render", "query", "voxels")  # to use labelled rays


@configuration
class LossWeights:
    """Weight of each term; a term of weight 0 is not computed."""

    depth: float = setting(1.0, "SILog of rendered depth, where depth_loss is silog", 0.0)
    termination: float = setting(
        1.0, "where depth_loss is termination: light of a ray ends where it returned, or leaves the grid", 0.0
    )
    return_voxel: float = setting(
        1.0, "where depth_loss is termination: one voxel length at the return stops the light", 0.0
    )
    semantics: float = setting(1.0, "cross-entropy of rendered classes", 0.0)
    distortion: float = setting(0.01, "spread of a ray's weights, in diagonals of the grid", 0.0)
    opacity: float = setting(0.01, "entropy of the light behind the last sample", 0.0)
    empty: float = setting(
        0.02, "optical depth of rays that were seen to leave the grid, a part of termination; the paper: 0", 0.0
    )
    depth_distribution: float = setting(0.05, "depth bins of the image features (BEVDepth)", 0.0)
    total_variation: float = setting(0.0, "unevenness of occupancy probabilities", 0.0)
    query_occupancy: float = setting(1.0, "empty and occupied points", 0.0)
    query_semantics: float = setting(1.0, "classes of occupied points", 0.0)
    label_voxel_occupancy: float = setting(1.0, "2D labels as voxels: occupied or free", 0.0)
    label_voxel_semantics: float = setting(1.0, "2D labels as voxels: classes of occupied voxels", 0.0)
    voxel_occupancy: float = setting(1.0, "3D truth: occupied or free", 0.0)
    voxel_semantics: float = setting(1.0, "3D truth: classes of occupied voxels", 0.0)


@configuration
class TerminationConfig:
    """Ray termination: where the light of a ray that returned may end."""

    margin: float = setting(1.0, "before and behind the return, voxels", 0.01, 100.0)
    run: bool = setting(
        True, "also in the unbroken run of voxels before it that hold returns of the same sample (grazing rays)"
    )


@configuration
class LabelVoxelConfig:
    """2D labels as voxels: how occupied voxels count among themselves. All of them together count alike anyway.

    Most occupied voxels are ground. With a power of 0 they all count alike; with 1 every layer (class) counts as much
    as any other, and little is left for the ground; values between take from it without starving it.
    """

    height_power: float = setting(
        0.0, "occupancy: a voxel's weight is the share of its layer among occupied voxels to minus this", 0.0, 1.0
    )
    class_power: float = setting(
        0.0, "classes: a voxel's weight is the share of its class among occupied voxels to minus this", 0.0, 1.0
    )


@configuration
class SupervisionConfig:
    """What the network learns from.

    The paper's losses are the defaults with `weights.empty` 0 and `depth_completion` none; the authors' code is that
    with `depth_target` contracted.
    """

    mode: str = setting(
        "render",
        "how labelled rays are used, joined by '+': render (the paper), query (3D points), voxels (marked as occupied "
        "and free); both: render+query",
    )
    labels_3d: str = setting(
        "off", "3D truth: not used, used with the rays (2D+3D), or instead of them", choices=("off", "with", "only")
    )
    truth_grid: VoxelGrid = setting(OCC3D_GRID, "grid of the 3D truth, which may reach beyond the model's")
    weights: LossWeights = setting(LossWeights(), "of the terms")
    query: QueryConfig = setting(QueryConfig(), "3D points on rays")
    label_voxels: LabelVoxelConfig = setting(LabelVoxelConfig(), "2D labels as voxels")
    depth_loss: str = setting(
        "silog", "what a rendered ray's distance says: its rendered depth (the paper), or where its light may end",
        choices=("silog", "termination"),
    )  # fmt: skip
    termination: TerminationConfig = setting(TerminationConfig(), "of depth_loss termination")
    step: float = setting(0.5, "distance between samples of a rendered ray, voxels", 0.01, 10.0)
    variance_focus: float = setting(0.85, "SILog: 1 forgives a wrong scale, 0 does not", 0.0, 1.0)
    balanced_classes: bool = setting(True, "weigh classes by 1 / log of how many labels they have")
    use_depth: bool = setting(True, "learn from distances: terms depth, empty and depth_distribution, and queries")
    use_semantics: bool = setting(True, "learn from classes")
    auxiliary_rays: bool = setting(True, "use the rays of other frames that a sample holds")
    class_only_rays: bool = setting(
        False, "render classes of rays without a distance too; what they hit may lie outside of the grid"
    )
    depth_target: str = setting(
        "euclidean",
        "rendered depth: distance along the ray, or as in the authors' code, for comparison",
        choices=("euclidean", "contracted"),
    )
    depth_completion: str = setting(
        "exit",
        "where light that nothing stopped counts in a rendered depth: where it leaves the grid, or nowhere",
        choices=("exit", "none"),
    )
    contraction_radius: float = setting(39.0, "unit of length of the contracted depth, metres", 0.1)

    def uses(self, way: str) -> bool:
        """Whether labelled rays are used in one of the `WAYS`."""
        return way in ("render+query" if self.mode == "both" else self.mode).split("+")

    def check(self) -> None:
        named = ("render+query" if self.mode == "both" else self.mode).split("+")
        unknown = [way for way in named if way not in WAYS]
        if unknown or len(set(named)) < len(named):
            raise ValueError(
                f"mode is '{self.mode}'; expected some of {', '.join(WAYS)}, each once and joined by '+', for example "
                "render+voxels"
            )
        if named != ["render"] and not self.use_depth and self.labels_3d != "only":
            raise ValueError(
                f"mode is {self.mode} but use_depth is false: without distances there are no points and no voxels; use "
                "mode=render"
            )
        if self.labels_3d != "only" and not (self.use_depth or self.use_semantics):
            raise ValueError("use_depth and use_semantics are both false: nothing is left to learn from rays")
        if self.uses("voxels") and not self.auxiliary_rays:
            raise ValueError(
                "auxiliary_rays is false, but voxels are made of the rays of other frames too; use "
                "sample.auxiliary_offsets=[]"
            )
        if self.depth_loss == "termination" and self.depth_target != "euclidean":
            raise ValueError("depth_loss termination renders no depth; use depth_target=euclidean, or depth_loss=silog")
