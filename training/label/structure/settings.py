"""Settings of depth from motion, and its errors."""

from __future__ import annotations

from renderocc_model.base.config import configuration, setting

__all__ = ["MotionDepth", "NoParallax", "StructureError"]


class StructureError(ValueError):
    """Depth from motion is not possible. The text names the cause and the remedy."""


class NoParallax(StructureError):
    """The cameras do not move and do not overlap, so nothing can be triangulated."""


@configuration
class MotionDepth:
    """Depth from motion: features are matched between images whose poses are known, and triangulated."""

    max_pixel_error: float = setting(
        1.0, "largest distance between a feature and its point's projection [pixels]", minimum=0.1
    )
    min_parallax: float = setting(1.0, "smallest angle between the outermost rays to a point [degrees]", minimum=0.05)
    max_depth_error: float = setting(
        0.1,
        "largest standard deviation of a depth, as a share of it, if features are exact to a pixel",
        minimum=0.001,
    )
    min_neighbours: int = setting(
        3,
        "of the ten nearest labels of an image, those that must have a similar depth where only two "
        "images see a point; where more see it, one must",
        minimum=0,
    )
    max_features: int = setting(4000, "most features of an image", minimum=50)
    feature_image_size: int = setting(
        1200, "larger images are scaled to this many pixels for the search of features", minimum=64
    )
    max_scale_error: float = setting(
        0.07, "largest error of the odometry's scale, as matches between cameras show it, that is accepted", minimum=0.0
    )
    matching_reach: float = setting(12.0, "images are matched up to this way of the vehicle apart [m]", minimum=0.5)
    window_images: int = setting(40, "images of each camera in one piece of work", minimum=2)
