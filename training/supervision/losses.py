"""The losses of 2D and 3D supervision, each a function of tensors.

They follow three rules. A ray, point or voxel of weight 0 does not count; its values may even be NaN. If nothing
counts, a loss is 0 and still depends on its inputs, so that `backward()` works. No loss makes the CPU wait for a GPU.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "class_weights",
    "depth_distribution",
    "distortion",
    "empty_space",
    "occupancy_cross_entropy",
    "opacity_entropy",
    "semantic_cross_entropy",
    "silog",
    "total_variation",
    "voxel_cross_entropy",
    "weighted_mean",
]

RAREST_COUNT = 10.0  # smallest number of labels that is used for a class, because 1 / log(n) has a pole at n = 1
SMALLEST_DEPTH = 1e-3  # metres, added to both depths in SILog to avoid the logarithm of 0
SMALLEST_LIGHT = 1e-6  # smallest transmittance that float32 distinguishes from 0
SMALLEST_WEIGHT = 1e-12  # replaces a sum of weights that is 0
SMALLEST_OPTICAL_DEPTH = 1e-7  # bounds the loss of an occupied point in empty space to 16


def class_weights(counts: Tensor | np.ndarray) -> Tensor:
    """Weights of classes in a cross-entropy, w_c = 1 / log(max(n_c, 10)), scaled to a mean of 1 (RenderOcc).

    The authors' code has 1 / log(n_c + 0.001) with n_c of the 3D truth; here n_c counts 2D labels. The scale does not
    matter to the losses below, which divide by the weights' sum.

    Args:
        counts: (C,) labels of each class, >= 0.
    Returns:
        (C,) float32. A class 400 times rarer than one of a million labels weighs 1.8 times as much.
    """
    counts = torch.as_tensor(counts).to(torch.float64)
    if counts.ndim != 1 or not bool((counts >= 0).all()):
        raise ValueError(f"class counts are {counts.tolist()}; expected a row of numbers that are not negative")
    weights = 1 / counts.clamp(min=RAREST_COUNT).log()
    return (weights / weights.mean()).to(torch.float32)


def weighted_mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """The weighted mean sum w v / sum w over all values, a number; 0 if the sum of weights is 0 or there are no values.

    Args:
        values: of any shape; values of weight 0 are not used.
        weights: >= 0 or bool, of the same shape; None for 1.
    """
    if weights is None:
        return values.sum() / max(values.numel(), 1)
    weights = weights.to(values.dtype)
    total = weights.sum()
    share = weights / torch.where(total > 0, total, torch.ones_like(total))
    return (values.masked_fill(weights == 0, 0) * share).sum()


def semantic_cross_entropy(
    logits: Tensor, channels: Tensor, class_weights: Tensor | None = None, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of classes, sum_r a_r (log sum_c exp(S_rc) - S_r,y(r)) / sum_r a_r (RenderOcc, L_seg).

    a_r is the weight of r's class times r's own, as in PyTorch's weighted mean.

    Args:
        logits: (R, C).
        channels: (R,) int64, index of the correct logit; -1 leaves the ray out.
        class_weights: (C,).
        weights: (R,) >= 0.
    """
    labelled = channels >= 0
    right = channels.clamp(min=0)
    each = functional.cross_entropy(logits, right, reduction="none")
    importance = labelled.to(each.dtype)
    if class_weights is not None:
        importance = importance * class_weights.to(each.dtype)[right]
    if weights is not None:
        importance = importance * weights
    return weighted_mean(each, importance)


def silog(predicted: Tensor, target: Tensor, weights: Tensor | None = None, variance_focus: float = 0.85) -> Tensor:
    """Scale-invariant logarithmic error of depth, sqrt(mean(g^2) - focus * mean(g)^2) with g = log p - log t.

    Eigen et al. 2014; the square root is that of BTS (Lee et al. 2019), whose factor 10 RenderOcc leaves out. It is
    computed as sqrt(var(g) + (1 - focus) mean(g)^2), which rounding does not make negative. The length of its gradient
    is at most 1 / sqrt(R), however small the error is, and 0 if the error is 0.

    Args:
        predicted, target: (R,) metres, > 0; a millimetre is added to both.
        weights: (R,) >= 0.
        variance_focus: with 1 a wrong scale costs nothing, with 0 the result is the root mean square.
    """
    counts = torch.ones_like(predicted, dtype=torch.bool) if weights is None else weights > 0
    # Values of weight 0 are replaced before the logarithm, because 0 * NaN would be NaN in the gradient.
    predicted, target = predicted.masked_fill(~counts, 1.0), target.masked_fill(~counts, 1.0)
    error = torch.log(predicted + SMALLEST_DEPTH) - torch.log(target + SMALLEST_DEPTH)
    mean = weighted_mean(error, weights)
    square = weighted_mean((error - mean).square(), weights) + (1 - variance_focus) * mean.square()
    some = square > torch.finfo(square.dtype).tiny
    return torch.where(some, torch.where(some, square, torch.ones_like(square)).sqrt(), square)


def distortion(weights: Tensor, places: Tensor, length: float) -> Tensor:
    """The spread of a ray's weights, sum_ij w_i w_j |s_i - s_j| + 1/3 sum_i w_i^2 length (mip-NeRF 360, eq. 15).

    It is computed in O(N). The double sum is 2 sum_i (s_{i+1} - s_i) W_i (W_N - W_i) with W_i = sum_{j<=i} w_j, because
    the distance of two samples is the sum of the gaps between them. All terms are >= 0, so nothing cancels.

    Args:
        weights: (R, N) of the samples along each ray, 0 for samples that do not exist.
        places: (R, N) positions of the samples, ascending, in any unit.
        length: length of a sample's interval, in the same unit.
    Returns:
        (R,) in that unit.
    """
    until = weights.cumsum(dim=1)
    behind = until[:, -1:] - until
    between = ((places[:, 1:] - places[:, :-1]) * until[:, :-1] * behind[:, :-1]).sum(dim=1)
    return 2 * between + length / 3 * weights.square().sum(dim=1)


def opacity_entropy(opacity: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -T log T - (1 - T) log(1 - T), T = 1 - opacity the light behind the last sample (RenderOcc, as in DVGO).

    It is smallest if the light of a ray is stopped completely or not at all, and at most log 2.

    Args:
        opacity: (R,) in [0, 1]. Within 1e-6 of 0 and 1 there is no gradient.
        weights: (R,) >= 0.
    """
    light = (1 - opacity).clamp(SMALLEST_LIGHT, 1 - SMALLEST_LIGHT)
    return weighted_mean(-light * light.log() - (1 - light) * torch.log1p(-light), weights)


def empty_space(opacity: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean of -log(1 - O), the loss of rays that leave the grid without a return (not in the paper).

    -log(1 - O) is the optical depth, sum_i sigma_i delta. It is also the negative log-likelihood of a ray that nothing
    stops. 1e-6 is added to 1 - O, so that the loss is at most 13.8.

    Args:
        opacity: (R,) in [0, 1].
        weights: (R,) >= 0.
    """
    return weighted_mean(-torch.log((1 - opacity).clamp(min=0) + SMALLEST_LIGHT), weights)


def depth_distribution(predicted: Tensor, right: Tensor) -> Tensor:
    """Binary cross-entropy of depth bins, summed over bins, mean over labelled feature pixels (BEVDepth).

    -sum_d (q_d log p_d + (1 - q_d) log(1 - p_d)), each logarithm at least -100 as in PyTorch.

    Args:
        predicted: p, (M, D, h, w), sums to one over D.
        right: q, (M, D, h, w), sums to one over D; zeros for pixels without a label.
    """
    labelled = right.sum(dim=1) > 0
    probability = predicted.masked_fill(~labelled[:, None], 0.5)
    return weighted_mean(functional.binary_cross_entropy(probability, right, reduction="none").sum(dim=1), labelled)


def total_variation(values: Tensor) -> Tensor:
    """Mean of |v - v'| over neighbours along x, plus that along y, plus that along z.

    Args:
        values: (..., X, Y, Z), for example occupancy probabilities. An axis of one voxel gives 0.
    """
    return sum(weighted_mean(values.diff(dim=axis).abs()) for axis in (-3, -2, -1))


def occupancy_cross_entropy(optical_depth: Tensor, occupied: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of occupancy with probability p = 1 - exp(-x), x = sigma * voxel_size.

    -log(1 - p) = x for empty points, and -log p = -log(-expm1(-x)) for occupied ones. Both are precise near p = 0 and
    p = 1. The gradient of an empty point does not vanish at large x.

    Args:
        optical_depth: x >= 0, of any shape; 1e-7 is added for occupied points.
        occupied: bool, of the same shape.
        weights: >= 0, of the same shape.
    """
    # Each branch gets only its own values, because the other's gradient could be infinite, and 0 * infinity is NaN.
    solid = torch.where(occupied, optical_depth, torch.ones_like(optical_depth)) + SMALLEST_OPTICAL_DEPTH
    return weighted_mean(torch.where(occupied, -torch.log(-torch.expm1(-solid)), optical_depth), weights)


def voxel_cross_entropy(
    density: Tensor,
    semantics: Tensor,
    channels: Tensor,
    occupied: Tensor,
    counted: Tensor,
    voxel_size: float,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """3D supervision: occupancy of the voxels that count, and classes of the occupied ones among them.

    Args:
        density: (X, Y, Z) 1/m.
        semantics: (X, Y, Z, C) logits.
        channels: (X, Y, Z) int64, index of the correct logit; -1 for none.
        occupied: (X, Y, Z) bool.
        counted: (X, Y, Z) bool, for example Occ3D's mask_camera and a known truth.
        voxel_size: metres.
        class_weights: (C,).
    Returns:
        `occupancy_cross_entropy` and `semantic_cross_entropy`, two numbers.
    """
    occupancy = occupancy_cross_entropy(density * voxel_size, occupied, counted)
    solid = (counted & occupied).flatten()
    classes = semantic_cross_entropy(semantics.flatten(0, 2), channels.flatten(), class_weights, solid)
    return occupancy, classes
