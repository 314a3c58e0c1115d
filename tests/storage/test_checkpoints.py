import contextlib
import errno
import fcntl
import json
import logging
import os
import resource
import shutil

import numpy as np
import pytest
import tensorflow as tf

from sparring.errors import UserError
from sparring.storage.checkpoints import Checkpoints, SaveFailed, restore_into


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def value_of(number, size=4):
    """Tensors with one variable that holds `number` everywhere."""
    return tf.train.Checkpoint(value=tf.Variable(tf.fill([size], float(number))))


def save(checkpoints, step, size=4):
    return checkpoints.save(step, value_of(step, size), {"step": step})


def restored_step(folder):
    """The step of the newest sound checkpoint, having checked that its three parts agree."""
    tensors = value_of(-1)
    restored = Checkpoints(folder).restore(tensors)
    assert restored.host == {"step": restored.step}
    np.testing.assert_array_equal(tensors.value, np.full(4, restored.step, np.float32))
    return restored.step


class Learner:
    """A small trainer with everything a real one keeps: network, Adam, a replay ring, a generator,
    a counter.
    """

    def __init__(self, seed=3):
        initial = tf.keras.initializers.GlorotUniform(seed)
        hidden = tf.keras.layers.Dense(8, "tanh", kernel_initializer=initial, input_shape=(3,))
        self.net = tf.keras.Sequential(
            [hidden, tf.keras.layers.Dense(1, kernel_initializer=initial)]
        )
        self.optimizer = tf.keras.optimizers.Adam(1e-2)
        self.optimizer.build(self.net.trainable_variables)
        self.ring = tf.Variable(tf.zeros([16, 3]))
        self.generator = tf.random.Generator.from_seed(5)
        self.count = tf.Variable(0, dtype=tf.int64)
        self.host = np.random.default_rng(9)
        parts = ("net", "optimizer", "ring", "generator", "count")
        self.tensors = tf.train.Checkpoint(**{part: getattr(self, part) for part in parts})

    def train(self):
        x = self.generator.normal([4, 3]) + self.host.normal()
        self.ring.scatter_nd_update((tf.range(4, dtype=tf.int64)[:, None] + 4 * self.count) % 16, x)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.square(self.net(self.ring) - tf.reduce_sum(self.ring, 1, keepdims=True))
            )
        variables = self.net.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self.count.assign_add(1)
        return float(loss)

    def state(self):
        variables = [
            *self.net.variables,
            *self.optimizer.variables,
            self.ring,
            self.generator.state,
            self.count,
        ]
        return [variable.numpy().tobytes() for variable in variables] + [
            self.host.bit_generator.state
        ]


def test_resumed_training_equals_uninterrupted_training_bit_for_bit(tmp_path):
    straight = Learner()
    losses = [straight.train() for _ in range(6)]
    first = Learner()
    first_losses = [first.train() for _ in range(3)]
    Checkpoints(tmp_path).save(3, first.tensors, {"generator": first.host.bit_generator.state})
    second = Learner(seed=4)
    second.train()  # so that a slot which is not restored shows
    restored = Checkpoints(tmp_path).restore(second.tensors)
    second.host.bit_generator.state = restored.host["generator"]
    assert second.state() == first.state()
    assert first_losses + [second.train() for _ in range(3)] == losses
    assert second.state() == straight.state()
    assert second.state() != first.state()


def test_a_folder_holds_one_folder_per_step_and_nothing_else(tmp_path):
    folder = save(Checkpoints(tmp_path / "new" / "run"), 12345)
    assert folder == tmp_path / "new" / "run" / "step_000000012345"
    assert names(folder.parent) == [folder.name]
    data = "tensors.data-00000-of-00001"
    assert names(folder) == ["host.json", "host.npz", "manifest.json", data, "tensors.index"]
    listed = json.loads((folder / "manifest.json").read_text())
    assert listed["step"] == 12345
    assert listed["versions"] == {"tensorflow": tf.__version__}


def test_no_checkpoint_is_none_and_a_folder_that_cannot_be_listed_is_not(tmp_path):
    assert Checkpoints(tmp_path).restore(value_of(0)) is None
    assert Checkpoints(tmp_path / "missing").restore(value_of(0)) is None
    assert Checkpoints(tmp_path / "missing").steps() == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be listed"):
        Checkpoints(tmp_path / "file").restore(value_of(0))


def test_the_newest_are_kept_and_any_of_them_can_be_asked_for(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (9, 10, 100, 1000):
        save(checkpoints, step)
    assert checkpoints.steps() == [100, 1000]
    assert restored_step(tmp_path) == 1000
    tensors = value_of(-1)
    assert checkpoints.restore(tensors, step=100).step == 100
    assert tensors.value.numpy()[0] == 100
    with pytest.raises(UserError, match=r"No checkpoint of step 10 .* there are: \[100, 1000\]"):
        checkpoints.restore(tensors, step=10)
    with pytest.raises(UserError, match="at least one"):
        Checkpoints(tmp_path, keep=0)


def test_the_one_just_saved_stays_even_if_later_steps_are_there(tmp_path):
    for step in (10, 20, 30):
        save(Checkpoints(tmp_path), step)
    save(Checkpoints(tmp_path, keep=1), 15)
    assert Checkpoints(tmp_path).steps() == [15]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(5, value_of(1), {"a": 1})
    checkpoints.save(5, value_of(2), {"a": 2})
    tensors = value_of(-1)
    assert checkpoints.restore(tensors).host == {"a": 2}
    assert tensors.value.numpy()[0] == 2
    assert names(tmp_path) == ["step_000000000005"]


def test_the_host_part_alone(tmp_path):
    save(Checkpoints(tmp_path), 7)
    step, host, folder = Checkpoints(tmp_path).restore(None)
    assert (step, host, folder) == (7, {"step": 7}, tmp_path / "step_000000000007")


def test_the_host_part_of_the_newest_without_a_look_at_the_rest(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.newest_host() == {}
    save(checkpoints, 3)
    save(checkpoints, 4)
    expected = checkpoints.restore(None).host
    (tmp_path / "step_000000000004" / "tensors.index").unlink()
    assert checkpoints.newest_host() == expected
    (tmp_path / "step_000000000004" / "host.json").write_text("{")
    assert checkpoints.newest_host() == {}


def test_what_is_not_accepted_is_not_restored(tmp_path):
    tensors = tf.train.Checkpoint(x=tf.Variable(1.0))
    Checkpoints(tmp_path).save(3, tensors, {"data": "old"})
    tensors.x.assign(2.0)

    def refuse(host):
        raise UserError(f"other data than {host['data']}")

    with pytest.raises(UserError, match="other data than old"):
        Checkpoints(tmp_path).restore(tensors, accept=refuse)
    assert float(tensors.x) == 2.0
    seen = []
    assert Checkpoints(tmp_path).restore(tensors, accept=seen.append).step == 3
    assert seen == [{"data": "old"}]
    assert float(tensors.x) == 1.0


def test_unsuitable_host_state_leaves_no_trace(tmp_path):
    with pytest.raises(UserError, match="host/bad: set"):
        Checkpoints(tmp_path).save(1, value_of(1), {"bad": {1}})
    assert names(tmp_path) == []


# ---- damage ----

DATA = "tensors.data-00000-of-00001"


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def garble(path):
    path.write_bytes(b'{"format": 1, "step"')


def empty_folder(path):
    shutil.rmtree(path.parent)
    path.parent.mkdir()


def other_step(path):
    shutil.rmtree(path.parent)
    shutil.copytree(path.parent.with_name("step_000000000010"), path.parent)


DAMAGES = [
    (cut, DATA, f"{DATA} is short of 1 of its "),
    (flip, DATA, f"{DATA} has changed"),
    (flip, "tensors.index", "tensors.index has changed"),
    (flip, "host.json", "host.json has changed"),
    (cut, "host.npz", "host.npz is short of 1 of its 22 bytes"),  # an empty zip file has 22
    (os.unlink, DATA, f"{DATA} is missing"),
    (os.unlink, "tensors.index", "tensors.index is missing"),
    (os.unlink, "manifest.json", "manifest.json is missing"),
    (empty, "manifest.json", "manifest.json is empty"),
    (garble, "manifest.json", "manifest.json is garbled"),
    (flip, "manifest.json", "manifest.json is garbled"),
    (empty_folder, "manifest.json", "manifest.json is missing"),
    (other_step, "manifest.json", "manifest.json is for step 10"),
]


@pytest.mark.parametrize(("damage", "name", "reason"), DAMAGES)
def test_a_damaged_newest_one_is_named_and_the_one_before_taken(
    tmp_path, caplog, damage, name, reason
):
    for step in (10, 20):
        save(Checkpoints(tmp_path), step)
    damage(tmp_path / "step_000000000020" / name)
    with caplog.at_level(logging.WARNING, "sparring"):
        assert restored_step(tmp_path) == 10
    [record] = caplog.records
    assert record.name == "sparring"
    assert record.getMessage().startswith(f"Checkpoint {tmp_path}/step_000000000020 is damaged: ")
    assert reason in record.getMessage()
    assert record.getMessage().endswith("Taking step_000000000010.")
    damage(tmp_path / "step_000000000010" / name) if damage is not other_step else empty(
        tmp_path / "step_000000000010" / DATA
    )
    with pytest.raises(
        UserError, match=r"step_000000000020: (.|\n)* step_000000000010: (.|\n)*start a new run"
    ):
        Checkpoints(tmp_path).restore(value_of(0))


def test_a_damaged_one_that_was_asked_for_is_not_replaced_by_another(tmp_path):
    for step in (10, 20):
        save(Checkpoints(tmp_path), step)
    flip(tmp_path / "step_000000000020" / DATA)
    with pytest.raises(UserError, match=r"step_000000000020: .* has changed"):
        Checkpoints(tmp_path).restore(value_of(0), step=20)
    with pytest.raises(UserError, match=r"step_000000000020 is damaged: .* has changed"):
        restore_into(value_of(0), tmp_path / "step_000000000020")


def test_damaged_ones_do_not_take_the_place_of_sound_ones(tmp_path):
    for step in (10, 20, 30):
        save(Checkpoints(tmp_path), step)
    flip(tmp_path / "step_000000000030" / DATA)
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.restore(value_of(0)).step == 20
    save(checkpoints, 25)
    assert checkpoints.steps() == [20, 25]


# ---- structure ----


def layers(**units):
    return tf.train.Checkpoint(
        **{name: tf.Variable(tf.ones(shape)) for name, shape in units.items()}
    )


def test_what_does_not_fit_is_listed_and_nothing_is_assigned(tmp_path):
    wrote = tf.train.Checkpoint(agent=layers(a=[2], b=[3, 4], gone=[1]), count=tf.Variable(1))
    Checkpoints(tmp_path).save(1, wrote, {})
    here = tf.train.Checkpoint(agent=layers(a=[2], b=[5, 4], new=[6]), count=tf.Variable(2.0))
    here.agent.a.assign([8.0, 9.0])
    with pytest.raises(UserError) as caught:
        Checkpoints(tmp_path).restore(here)
    assert str(caught.value).splitlines()[1:-1] == [
        "  not in the checkpoint: agent/new (float32 (6,))",
        "  only in the checkpoint: agent/gone (float32 (1,))",
        "  differs: count is int32 () in the checkpoint, float32 () here",
        "  differs: agent/b is float32 (3, 4) in the checkpoint, float32 (5, 4) here",
    ]
    np.testing.assert_array_equal(here.agent.a, [8.0, 9.0])


def test_an_optimizer_that_was_not_built_is_refused(tmp_path):
    learner = Learner()
    Checkpoints(tmp_path).save(1, learner.tensors, {})
    learner.tensors.optimizer = tf.keras.optimizers.Adam(1e-2)
    # Adam on two dense layers: two slots for each of four variables, number 0 is the iteration
    # counter.
    with pytest.raises(
        UserError, match=r"only in the checkpoint: optimizer/_variables/8 \(float32 \(1,\)\)"
    ):
        Checkpoints(tmp_path).restore(learner.tensors)


def test_variables_shared_under_two_names_fit_when_either_is_there(tmp_path):
    shared = tf.Variable([1.0])
    Checkpoints(tmp_path).save(1, tf.train.Checkpoint(a=shared), {})
    other = tf.Variable([0.0])
    Checkpoints(tmp_path).restore(tf.train.Checkpoint(a=other, alias=other))
    assert other.numpy()[0] == 1.0


def test_part_of_a_checkpoint_for_a_warm_start(tmp_path):
    wrote = Learner()
    wrote.train()
    folder = Checkpoints(tmp_path).save(40, wrote.tensors, {})
    here = Learner(seed=4)
    assert here.net.variables[0].numpy().tobytes() != wrote.net.variables[0].numpy().tobytes()
    assert restore_into(tf.train.Checkpoint(net=here.net), folder) == 40
    for mine, theirs in zip(here.net.variables, wrote.net.variables, strict=True):
        assert mine.numpy().tobytes() == theirs.numpy().tobytes()
    assert here.count.numpy() == 0
    with pytest.raises(
        UserError, match=r"not in the checkpoint: critic \(float32 \(\)\)\n(?!.*only in)"
    ):
        restore_into(tf.train.Checkpoint(net=here.net, critic=tf.Variable(1.0)), folder)
    for wrong in (tmp_path, tmp_path / "step_000000000041"):
        with pytest.raises(UserError, match="is not a checkpoint"):
            restore_into(tf.train.Checkpoint(net=here.net), wrong)


# ---- a disk that refuses ----


@contextlib.contextmanager
def files_no_larger_than(size):
    """Any file growing past `size` bytes fails in the kernel, as on a full disk (Python ignores the
    signal).
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "size", [4, 300, 50_000]
)  # fails in host.json, in host.npz, in TensorFlow's data of 400 kB
def test_a_refused_save_says_so_and_loses_nothing(tmp_path, size):
    checkpoints = Checkpoints(tmp_path, keep=1)
    save(checkpoints, 1)
    save(checkpoints, 2)
    host = {"step": 3, "array": np.zeros(100)}  # 800 bytes of data
    for step in (2, 3):
        with (
            files_no_larger_than(size),
            pytest.raises(SaveFailed, match=rf"of step {step} in [^{{]* too large[^\[]*$"),
        ):
            checkpoints.save(step, value_of(step, 100_000), host)
        assert names(tmp_path) == ["step_000000000002"]
    assert restored_step(tmp_path) == 2
    save(checkpoints, 3)
    assert restored_step(tmp_path) == 3


def test_a_full_disk_is_called_that(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SaveFailed, match=r"the disk is full.*untouched \(1 there\)"):
        save(checkpoints, 2)
    assert names(tmp_path) == ["step_000000000001"]


# ---- kills ----


def test_leftovers_are_cleaned_unless_somebody_is_saving_there(tmp_path):
    save(Checkpoints(tmp_path), 1)
    (tmp_path / ".scratch-step_000000000002").mkdir()
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    Checkpoints(tmp_path)
    assert names(tmp_path) == [".scratch-step_000000000002", "step_000000000001"]
    os.close(descriptor)
    Checkpoints(tmp_path)
    assert names(tmp_path) == ["step_000000000001"]
