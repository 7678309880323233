"""Settings of supervision: which labels are used, and the weights of the loss terms."""

from __future__ import annotations

from renderocc_model.base.config import configuration, setting
from renderocc_model.geometry.grid import OCC3D_GRID, VoxelGrid

from .queries import QueryConfig

__all__ = ["WAYS", "LabelVoxelConfig", "LossWeights", "SupervisionConfig", "TerminationConfig"]

WAYS = ("render", "query", "voxels")  # ways to use labelled rays


@configuration
class LossWeights:
    """Weight of each term; a term of weight 0 is not computed."""

    depth: float = setting(1.0, "with depth_loss=silog: SILog of the rendered depth", 0.0)
    termination: float = setting(
        1.0, "with depth_loss=termination: the light of a ray must end at its return, or leave the grid", 0.0
    )
    return_voxel: float = setting(
        1.0, "with depth_loss=termination: a length of one voxel at the return must stop the light", 0.0
    )
    semantics: float = setting(1.0, "cross-entropy of rendered classes", 0.0)
    distortion: float = setting(0.01, "spread of the weights along a ray, in units of the grid's diagonal", 0.0)
    opacity: float = setting(0.01, "entropy of the light that is left after the last sample", 0.0)
    empty: float = setting(
        0.02, "optical depth of rays whose label is outside the grid; a part of termination (0 in the paper)", 0.0
    )
    depth_distribution: float = setting(0.05, "depth bins of the image features (BEVDepth)", 0.0)
    total_variation: float = setting(0.0, "differences between occupancy probabilities of neighbours", 0.0)
    query_occupancy: float = setting(1.0, "occupancy at empty and occupied points", 0.0)
    query_semantics: float = setting(1.0, "classes at occupied points", 0.0)
    label_voxel_occupancy: float = setting(1.0, "occupancy of voxels that 2D labels mark", 0.0)
    label_voxel_semantics: float = setting(1.0, "classes of occupied voxels that 2D labels mark", 0.0)
    voxel_occupancy: float = setting(1.0, "occupancy against 3D truth", 0.0)
    voxel_semantics: float = setting(1.0, "classes of occupied voxels against 3D truth", 0.0)


@configuration
class TerminationConfig:
    """Ray termination: the part of a ray in which its light may end, if the ray has a return."""

    margin: float = setting(1.0, "length before and behind the return, voxels", 0.01, 100.0)
    run: bool = setting(
        True, "add the unbroken row of voxels before the return that hold returns of the same sample (for grazing rays)"
    )


@configuration
class LabelVoxelConfig:
    """2D labels as voxels: the weights of occupied voxels relative to each other. Their sum does not change.

    Most occupied voxels are ground. With a power of 0 all voxels have the same weight. With 1 every layer (or class)
    has the same weight in sum, which leaves little for the ground.
    """

    height_power: float = setting(
        0.0, "for occupancy, a voxel's weight is (share of its layer among occupied voxels) ^ -power", 0.0, 1.0
    )
    class_power: float = setting(
        0.0, "for classes, a voxel's weight is (share of its class among occupied voxels) ^ -power", 0.0, 1.0
    )


@configuration
class SupervisionConfig:
    """How labels are used.

    The paper's losses are the defaults with `weights.empty` 0 and `depth_completion` none. The authors' code also has
    `depth_target` contracted.
    """

    mode: str = setting(
        "render",
        "how labelled rays are used: render (the paper), query (3D points), voxels (occupied and free voxels), or "
        "several joined by '+'; 'both' is render+query",
    )
    labels_3d: str = setting(
        "off", "3D truth: not used, used beside rays (2D+3D), or used instead of rays", choices=("off", "with", "only")
    )
    truth_grid: VoxelGrid = setting(OCC3D_GRID, "grid of the 3D truth, which may be larger than the model's")
    weights: LossWeights = setting(LossWeights(), "weights of the terms")
    query: QueryConfig = setting(QueryConfig(), "3D points on rays")
    label_voxels: LabelVoxelConfig = setting(LabelVoxelConfig(), "2D labels as voxels")
    occupancy_factor: float = setting(
        1.0,
        "points, voxels and 3D truth: p = 1 - exp(-factor * sigma * voxel_size) is the probability of a voxel to be "
        "occupied. Above 1, a voxel that is occupied with probability 1/2 stops less than half of the light in "
        "rendering",
        0.01,
        100.0,
    )
    depth_loss: str = setting(
        "silog",
        "what the distance of a ray is compared with: its rendered depth (the paper), or where its light ends",
        choices=("silog", "termination"),
    )
    termination: TerminationConfig = setting(TerminationConfig(), "settings of depth_loss=termination")
    step: float = setting(0.5, "distance between samples of a rendered ray, voxels", 0.01, 10.0)
    variance_focus: float = setting(0.85, "SILog: 1 ignores a wrong scale, 0 does not", 0.0, 1.0)
    balanced_classes: bool = setting(True, "weigh classes by 1 / log(number of their labels)")
    depth_bins: str = setting(
        "nearest",
        "what the depth bins of a feature pixel are compared with: the bin of its nearest return (BEVDepth), or the "
        "shares of its returns in each bin",
        choices=("nearest", "shares"),
    )
    depth_from_volume: bool = setting(
        True,
        "terms of the volume and of rendering teach the depth bins, too; false: weights.depth_distribution alone does",
    )
    use_depth: bool = setting(True, "learn from distances: terms depth, empty and depth_distribution, and queries")
    use_semantics: bool = setting(True, "learn from classes")
    auxiliary_rays: bool = setting(True, "use the rays of other frames in a sample")
    class_only_rays: bool = setting(
        False, "also render the classes of rays without a distance, whose objects may be outside the grid"
    )
    depth_target: str = setting(
        "euclidean",
        "rendered depth: the distance along the ray, or the contracted depth of the authors' code, for comparison",
        choices=("euclidean", "contracted"),
    )
    depth_completion: str = setting(
        "exit",
        "depth of light that nothing stops: the distance at which the ray leaves the grid, or 0",
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
                f"mode is {self.mode} but use_depth is false: points and voxels need distances; use mode=render"
            )
        if self.labels_3d != "only" and not (self.use_depth or self.use_semantics):
            raise ValueError("use_depth and use_semantics are both false: nothing is left to learn from rays")
        if self.uses("voxels") and not self.auxiliary_rays:
            raise ValueError(
                "auxiliary_rays is false, but voxels are made of the rays of other frames too; use "
                "sample.auxiliary_offsets=[]"
            )
        if not self.depth_from_volume and not (self.use_depth and self.weights.depth_distribution > 0):
            raise ValueError(
                "depth_from_volume is false, but no term teaches the depth bins; set use_depth to true and "
                "weights.depth_distribution above 0"
            )
        if self.depth_loss == "termination" and self.depth_target != "euclidean":
            raise ValueError("depth_loss termination renders no depth; use depth_target=euclidean, or depth_loss=silog")
