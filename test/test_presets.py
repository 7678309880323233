"""The presets are those of the design, and every model file of the repository loads."""

from __future__ import annotations

import pytest

from renderocc_model.base.config import from_mapping, settings_of, to_mapping
from renderocc_model.network.config import ModelConfig
from renderocc_model.network.presets import PRESETS, preset


def test_the_presets_have_the_sizes_of_the_design():
    table = {
        name: (config.images.height, config.images.width, config.encoder.kind, config.fusion.enabled, config.grid.shape)
        for name, config in PRESETS.items()
    }
    assert table == {
        "tiny": (128, 352, "channel_to_height", False, (100, 100, 16)),
        "base": (256, 704, "channel_to_height", False, (200, 200, 16)),
        "paper": (512, 1408, "convolutions_3d", True, (200, 200, 16)),
    }
    assert PRESETS["base"].backbone.name == "resnet50" and PRESETS["paper"].backbone.name.startswith("swin_base")
    assert all(config.grid.voxel_size == 0.4 and config.class_count == 17 for config in PRESETS.values())


def test_the_depth_bins_reach_the_corners_of_the_grid():
    for config in PRESETS.values():
        # A corner of the grid is sqrt(2) * 20 m = 28.3 m (tiny) or 56.6 m from its middle; cameras stand before it.
        half_diagonal = (config.grid.upper[0] ** 2 + config.grid.upper[1] ** 2) ** 0.5
        assert config.lift.depth.maximum > half_diagonal - 1


def test_every_setting_has_a_help_text():
    assert [leaf.name for leaf in settings_of(ModelConfig) if not leaf.help and not leaf.name.startswith("grid.")] == []


def test_presets_survive_plain_data():
    assert all(from_mapping(ModelConfig, to_mapping(config)) == config for config in PRESETS.values())


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no preset 'huge'; choose one of tiny, base, paper"):
        preset("huge")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["lift.height_slices=3"], "does not divide the grid's 16 voxels"),
        (["encoder.kind=convolutions_3d"], "set it to 16"),
        (["encoder.blocks=[1]"], "as many of both"),
        (["backbone.levels=[4, 3]"], "finest first"),
        (["lift.depth.maximum=0.5"], "the maximum the larger"),
        (["grid.voxel_size=0.3"], "whole number of voxels"),
        (["grid.lower=[-2000, -2000, -1]", "grid.upper=[2000, 2000, 5.4]"], "larger voxels or a smaller volume"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(words, reason):
    with pytest.raises(ValueError) as error:
        preset("tiny", words)
    assert reason in str(error.value)
