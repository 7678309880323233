"""Which samples a step has: the same for any number of processes, and after any interruption."""

import pytest
import torch
from small_training import small_settings, small_tables

from training.data.epochs import EpochSampler
from training.train.config import load_train_config
from training.train.distributed import Processes
from training.train.loader import StepSampler, training_batches
from training.train.run_data import open_data

ALONE = Processes(0, 1, torch.device("cpu"))


def steps(sampler: StepSampler, parts: int) -> list[list]:
    keys = list(sampler)
    assert len(keys) == len(sampler)
    return [sum(keys[first : first + parts], []) for first in range(0, len(keys), parts)]


def test_epochs_follow_each_other_without_gaps():
    """Steps of 4 out of 10 samples: the third step ends one epoch and begins the next."""
    keys = sum(StepSampler(10, 3, 0, 5, batch=4, part=4), [])
    assert keys == list(EpochSampler(10, 3, 0)) + list(EpochSampler(10, 3, 1))
    assert sum(StepSampler(3, 0, 0, 2, batch=6, part=6), [])[:3] == list(EpochSampler(3, 0, 0))  # batches beyond epochs


@pytest.mark.parametrize(("world", "part"), [(1, 8), (2, 2), (4, 1)])
def test_a_steps_samples_do_not_depend_on_processes_or_parts(world, part):
    wanted = steps(StepSampler(30, 1, 0, 6, 8, 8), 1)
    found = [steps(StepSampler(30, 1, 0, 6, 8, part, rank, world), 8 // world // part) for rank in range(world)]
    assert [sorted(sum(one, [])) for one in zip(*found)] == [sorted(step) for step in wanted]


def test_going_on_at_a_step_gives_what_was_left():
    assert list(StepSampler(7, 0, 5, 9, 4, 2)) == list(StepSampler(7, 0, 0, 9, 4, 2))[10:]


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="a batch of 6 cannot be shared by 4 processes"):
        StepSampler(7, 0, 0, 9, 6, 1, 0, 4)


def test_loading_processes_give_the_same_batches_as_none(tmp_path):
    small_tables(tmp_path)
    batches = []
    for workers in (0, 2):
        config = load_train_config(small_settings(tmp_path), [f"run.workers={workers}", "steps=3", "accumulate=2"])
        data = open_data(config, tmp_path / "tables")
        assert (data.training.recordings, data.held_out.recordings) == (("one", "two"), ("three",))
        batches.append(list(training_batches(config, data.training, 0, ALONE)))
    assert len(batches[0]) == 6 and batches[0][0].current.images.shape[0] == 1
    for one, other in zip(*batches):
        assert one.names == other.names and torch.equal(one.images, other.images)
        assert torch.equal(one.rays[0].directions, other.rays[0].directions)
