"""Networks for inference: batch normalisation becomes part of the convolution before it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from renderocc_model.network.lift import CAMERA_PARAMETERS
from renderocc_model.network.network import OccupancyNetwork

__all__ = ["fold_batch_norms", "folded_for_inference"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)


def folded_for_inference(network: OccupancyNetwork) -> OccupancyNetwork:
    """A copy of a network for inference, on its device: in evaluation mode, without gradients, norms folded.

    The network itself is left as it is.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    config, parameter = network.config, next(network.parameters())

    def run() -> None:
        like = {"dtype": parameter.dtype, "device": parameter.device}
        images = torch.zeros(1, 3, config.images.height, config.images.width, **like)
        network.image_features(images, torch.ones(1, CAMERA_PARAMETERS, **like))
        network.decode(network.join(torch.zeros(1, *config.volume_shape, **like)))

    fold_batch_norms(network, run)
    return network


def fold_batch_norms(module: nn.Module, run: Callable[[], object]) -> int:
    """Fold each batch norm into the convolution before it, if nothing else reads that convolution's output.

    The order of operations is seen by running the module, not guessed from the order of its parts: any timm network
    works. y = (W x + b - mean) * scale + shift is a convolution with weights W * scale and bias
    (b - mean) * scale + shift; the products are made in float64. Activations that belong to a norm stay.

    Args:
        module: in evaluation mode; changed in place.
        run: runs the module once, on anything.
    Returns:
        how many norms were folded.
    """
    uses = _Uses(module)
    with torch.no_grad(), uses:
        run()
    names = {part: name for name, part in module.named_modules()}
    pairs = uses.pairs()
    for convolution, norm in pairs:
        _fold(convolution, norm)
        parent, _, name = names[norm].rpartition(".")
        setattr(module.get_submodule(parent), name, _without_norm(norm))
    return len(pairs)


class _Uses(TorchDispatchMode):
    """Records what reads the outputs of convolutions while it is active."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        parts = list(module.modules())
        self._convolutions = {id(part.weight): part for part in parts if isinstance(part, _CONVOLUTIONS)}
        self._norms = {
            id(part.running_mean): part
            for part in parts
            if type(part) in _NORMS and part.running_mean is not None and not part.training
        }
        self._made: dict[int, nn.Module] = {}  # id of an output: the convolution that made it
        self._kept: list[Tensor] = []  # kept alive, so that no other tensor gets its id
        self._runs: dict[nn.Module, int] = {}
        self._readers: dict[nn.Module, list[nn.Module | None]] = {}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = [id(value) for value in tree_leaves((args, kwargs or {})) if isinstance(value, Tensor)]
        norm = next((self._norms[value] for value in given if value in self._norms), None)
        if norm is not None:
            self._runs[norm] = self._runs.get(norm, 0) + 1
        for value in given:
            if value in self._made:
                self._readers.setdefault(self._made[value], []).append(norm)
        convolution = next((self._convolutions[value] for value in given if value in self._convolutions), None)
        if convolution is not None and "convolution" in str(function):
            self._made[id(result)] = convolution
            self._kept.append(result)
            self._runs[convolution] = self._runs.get(convolution, 0) + 1
        return result

    def pairs(self) -> list[tuple[nn.Module, nn.Module]]:
        """Pairs (convolution, norm) that ran once each, where only the norm read the convolution's output."""
        return [
            (convolution, readers[0])
            for convolution, readers in self._readers.items()
            if len(readers) == 1 and readers[0] is not None and self._runs[convolution] == self._runs[readers[0]] == 1
        ]


def _fold(convolution: nn.Module, norm: nn.Module) -> None:
    weight = convolution.weight
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    folded = weight.double() * scale.view(-1, *[1] * (weight.ndim - 1))
    # In the layout of the weight before: channels-last, as `build_network` made it.
    convolution.weight = nn.Parameter(torch.empty_like(weight).copy_(folded), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _without_norm(norm: nn.Module) -> nn.Module:
    return nn.Sequential(norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else nn.Identity()
