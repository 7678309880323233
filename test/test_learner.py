"""One step of learning: its gradient, its precision, what comes of bad ones, and every kind of model and label."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import small_settings, small_tables

from renderocc_model.base.config import to_mapping
from renderocc_model.field.classes import GROUND_OBSTACLE
from renderocc_model.network.checkpoint import save_checkpoint
from renderocc_model.network.network import build_network
from renderocc_model.network.presets import PRESETS
from training.data.previous_frame import previous_frame
from training.train.config import load_train_config
from training.train.distributed import Processes
from training.train.learner import Diverged, Learner, _initial_network
from training.train.loader import training_batches
from training.train.loop import learn
from training.train.precision import training_precision
from training.train.run_data import open_data

pytestmark = pytest.mark.slow

ALONE = Processes(0, 1, torch.device("cpu"))
GRID = "supervision.truth_grid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("learner")
    small_tables(path)
    return path


def learner_and_batches(folder, *words, preset="tiny"):
    config = load_train_config(small_settings(folder, preset), words)
    data = open_data(config, folder / "tables")
    return Learner(config, data.training, ALONE), training_batches(config, data.training, 0, ALONE)


def test_the_gradient_is_that_of_the_whole_batchs_loss(folder, monkeypatch):
    """Losses taken sample by sample from a cut-off output, against one backward pass through everything."""
    learner, batches = learner_and_batches(folder, "optimiser.batch_norm=frozen")
    batch = next(batches)
    output = learner.network(batch.current.network_input(), batch.geometry)
    terms = learner.supervision.terms(output, batch)
    wanted = torch.autograd.grad(sum(terms.values()), list(learner.network.parameters()))
    monkeypatch.setattr(learner, "update", lambda figures: None)  # weights and gradients stay as they are
    sums, _ = learn(learner, iter([batch]))
    assert float(sums["loss"]) == pytest.approx(sum(terms.values()).item(), rel=1e-5)
    for parameter, gradient in zip(learner.network.parameters(), wanted):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "words", "terms"),
    [
        ("tiny", ["precision=bfloat16", "supervision.mode=both"], {"depth", "semantics", "query_occupancy"}),
        ("tiny", ["accumulate=2", "sample.augment.mirror_y=1.0"], {"depth", "semantics"}),
        ("base", ["supervision.mode=query"], {"query_occupancy", "query_semantics"}),
        (
            "tiny",
            ["supervision.mode=render+voxels", "supervision.depth_loss=termination", "sample.augment.rotation=1"],
            {
                "termination",
                "return_voxel",
                "semantics",
                "label_voxel_occupancy",
                "label_voxel_semantics",
                "label_voxels/occupied",
                "label_voxels/free",
            },
        ),
        ("paper", [], {"depth", "semantics"}),
        ("paper", ["precision=bfloat16", "sample.augment.rotation=0.5"], {"depth", "semantics"}),
        (
            "tiny",
            [
                "model.fusion.enabled=true",
                "model.fusion.stereo.channels=8",
                "model.fusion.frames=3",
                "model.lift.subpixels=2",
                "model.heads.density_layers=2",
                "supervision.depth_bins=shares",
                "sample.depth_rays=300",
                "precision=bfloat16",
                "sample.augment.mirror_y=1.0",
            ],
            {"depth", "semantics"},
        ),
        ("tiny", ["supervision.labels_3d=only"], {"voxel_occupancy", "voxel_semantics"}),
        ("tiny", ["supervision.labels_3d=with", "sample.augment.mirror_x=1.0"], {"voxel_occupancy", "depth"}),
    ],
)
def test_every_kind_of_model_and_supervision_learns(folder, preset, words, terms):
    grid = to_mapping(load_train_config(small_settings(folder)).model.grid)
    words = [*words, *(f"{GRID}.{name}={value}" for name, value in grid.items())]
    learner, batches = learner_and_batches(folder, *words, preset=preset)
    before = {name: parameter.detach().clone() for name, parameter in learner.network.named_parameters()}
    for _ in range(2):
        values, rays = learn(learner, batches)
    assert terms <= values.keys() and torch.isfinite(values["loss"]) and rays > 0
    still = [name for name, parameter in learner.network.named_parameters() if torch.equal(before[name], parameter)]
    # Biases before batch normalisation and those no label reached may rest; most must move.
    assert len(still) < len(before) / 4, still
    assert any("fusion" in name for name in before) == learner.config.model.fusion.enabled
    assert not any(name.startswith(("fusion", "stereo")) for name in still)


def test_the_previous_frame_is_moved_and_missing_ones_are_not_valid(folder):
    learner, batches = learner_and_batches(folder, preset="paper")
    batch = next(batches)
    kept = previous_frame(learner.network, batch)
    assert kept.valid.tolist() == [not name.endswith("frame 0") for name in batch.names]
    motion = np.linalg.inv(batch.odom_from_base.numpy()) @ batch.previous[0].odom_from_base.numpy()
    np.testing.assert_allclose(kept.base_from_volume, motion, atol=1e-12)
    assert not kept.volume.requires_grad


def test_a_gradient_that_is_not_finite_names_term_and_settings(folder):
    learner, batches = learner_and_batches(folder, "supervision.mode=query", "precision=bfloat16")
    with torch.no_grad():
        learner.network.heads.semantics[-1].weight.fill_(torch.inf)
    wanted = r"query_semantics.* not finite; try a lower optimiser.learning_rate \(now 0.003\).*precision=float32"
    with pytest.raises(Diverged, match=wanted):
        learn(learner, batches)


def test_an_output_that_is_not_finite_is_said_before_averages_take_it_in(folder):
    learner, batches = learner_and_batches(folder)
    learn(learner, batches)
    with torch.no_grad():
        next(learner.network.parameters()).fill_(torch.nan)
    with pytest.raises(Diverged, match="step 1: the network's output is not finite"):
        learn(learner, batches)
    assert learner.step == 1
    assert all(torch.isfinite(one).all() for one in learner.state()["average"].values())


def test_a_run_begins_from_a_checkpoint(folder, tmp_path):
    first, _ = learner_and_batches(folder)
    save_checkpoint(tmp_path / "start.safetensors", first.network, first.classes, 0.4)
    second, _ = learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}", "seed=7")
    for one, other in zip(first.network.state_dict().values(), second.network.state_dict().values()):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="another network than `model` describes .they differ in neck"):
        learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}", "model.neck.channels=4")
    # Heights and rays may be new: they begin without effect.
    words = ("model.lift.heights.count=5", "model.lift.rays=true")
    third, _ = learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}", *words)
    state = third.network.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in first.network.state_dict().items())
    assert not state["lift.predict_height.weight"].any() and not state["lift.rays.weight"].any()
    # A feature pixel may be lifted as several places: all begin as the pixel did.
    fourth, _ = learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}", "model.lift.subpixels=2")
    begun, state = first.network.state_dict(), fourth.network.state_dict()
    same = {name for name, one in begun.items() if torch.equal(one, state[name])}
    assert begun.keys() - same == {"lift.predict.weight", "lift.predict.bias"}
    # A voxel may have several layers of density, which begin alike.
    fifth, _ = learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}", "model.heads.density_layers=2")
    state = fifth.network.state_dict()
    for name in ("heads.density.3.weight", "heads.density.3.bias"):
        assert torch.equal(state[name], begun[name].expand_as(state[name])) and len(state[name]) == 2


def test_a_deeper_network_begins_as_the_same_function_and_all_of_it_learns(folder, tmp_path):
    first, batches = learner_and_batches(folder)
    save_checkpoint(tmp_path / "start.safetensors", first.network, first.classes, 0.4)
    blocks = [count + 1 for count in first.config.model.encoder.blocks]
    words = ("model.lift.blocks=3", f"model.encoder.blocks={blocks}", "optimiser.batch_norm=frozen")
    second, _ = learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}", *words)
    begun, state = first.network.state_dict(), second.network.state_dict()
    assert all(torch.equal(one, state[name]) for name, one in begun.items()) and len(state) > len(begun)
    state = {name: one.clone() for name, one in state.items()}
    batch = next(batches)
    with torch.no_grad():
        for learner in (first, second):
            learner.network.eval()
        one, other = first.predict(batch), second.predict(batch)
    torch.testing.assert_close(one.density, other.density)
    torch.testing.assert_close(one.depth_distribution, other.depth_distribution)
    for _ in range(3):
        learn(second, batches)
    new = {name: one for name, one in second.network.named_parameters() if name not in begun}
    assert not any(torch.equal(one, state[name]) for name, one in new.items())


def test_depth_bins_can_be_kept_from_all_terms_but_their_own(folder):
    learner, batches = learner_and_batches(folder, "supervision.depth_from_volume=false")
    learner.predict(next(batches)).density.sum().backward()
    gradient, bins = learner.network.lift.predict.weight.grad, learner.config.model.lift.depth.count
    assert not gradient[:bins].any() and gradient[bins:].any()


def test_for_another_number_of_classes_the_last_layer_alone_begins_anew(folder, tmp_path):
    first, _ = learner_and_batches(folder)
    other = build_network(replace(first.config.model, class_count=2))
    save_checkpoint(tmp_path / "start.safetensors", other, GROUND_OBSTACLE, 0.4)
    second, _ = learner_and_batches(folder, f"initial={tmp_path / 'start.safetensors'}")  # the labels have 17 classes
    begun, state = other.state_dict(), second.network.state_dict()
    anew = [name for name, one in begun.items() if one.shape != state[name].shape]
    assert anew == ["heads.semantics.3.weight", "heads.semantics.3.bias"]
    assert all(torch.equal(one, state[name]) for name, one in begun.items() if name not in anew)


def test_classes_that_others_are_merged_into_begin_with_the_sum_of_their_probabilities(folder, tmp_path):
    first, _ = learner_and_batches(folder)
    save_checkpoint(tmp_path / "start.safetensors", first.network, first.classes, 0.4)
    config = replace(first.config, initial=str(tmp_path / "start.safetensors"))
    config = replace(config, model=replace(config.model, class_count=2))
    begun, state = first.network.state_dict(), _initial_network(config, GROUND_OBSTACLE).state_dict()
    # Of Occ3D's 17 classes 11 to 14 are ground: driveable_surface, other_flat, sidewalk, terrain.
    obstacles = [*range(11), 15, 16]
    for name in ("heads.semantics.3.weight", "heads.semantics.3.bias"):
        expected = torch.stack([begun[name][11:15].mean(0), begun[name][obstacles].mean(0)])
        if name.endswith("bias"):  # with equal logits x of its n parts, a class has log(n exp(x)) = x + log(n)
            expected += torch.tensor([math.log(4), math.log(13)])
        torch.testing.assert_close(state.pop(name), expected)
    assert all(torch.equal(one, begun[name]) for name, one in state.items())


def test_labels_of_other_classes_than_the_model_has_are_refused(folder):
    with pytest.raises(ValueError, match="model.class_count is 5, but the labels have 17"):
        learner_and_batches(folder, "model.class_count=5")


def test_auto_is_bfloat16_where_the_cpu_multiplies_it(monkeypatch):
    for has, chosen in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr("training.train.precision.cpu_multiplies_bfloat16", lambda has=has: has)
        assert training_precision("auto", torch.device("cpu")) == chosen
    assert training_precision("bfloat16", torch.device("cpu")) == "bfloat16"


def test_the_presets_train_with_the_paper_settings():
    """What the samples of the paper's model hold: one previous frame, three neighbours on either side."""
    config = replace(load_train_config(None), model=PRESETS["paper"])
    assert config.samples(True).previous == 1 and config.samples(True).auxiliary_offsets == (-3, -2, -1, 1, 2, 3)
