"""The optimizer around Keras': clipping by the global norm, schedules, norms, and slots in the
order asked.
"""

import numpy as np
import pytest
import tensorflow as tf

from sparring.optim.optimizer import Scheduled, descriptions
from sparring.optim.schedules import Linear

HALF = tf.constant(0.5)
START = tf.constant(0.0)


def built(
    optimizer: tf.keras.optimizers.Optimizer, learning_rate, variables: list[tf.Variable]
) -> Scheduled:
    scheduled = Scheduled(optimizer, learning_rate)
    scheduled.build(variables)
    return scheduled


@pytest.mark.parametrize("mode", ["eager", "xla"])
def test_the_gradient_is_clipped_by_the_norm_of_all_of_it(mode):
    # gradients 3 and 4 have norm 5; clipped to 1 they are 0.6 and 0.8. Clipped one by one they
    # would be 1 and 1.
    a = tf.Variable([1.0])
    b = tf.Variable([[2.0]])
    scheduled = built(tf.keras.optimizers.SGD(global_clipnorm=1.0), 0.1, [a, b])
    step = (
        scheduled.step
        if mode == "eager"
        else tf.function(scheduled.step, jit_compile=True, autograph=False)
    )
    norms = step([tf.constant([3.0]), tf.constant([[4.0]])], START)
    np.testing.assert_allclose(a, [1.0 - 0.06], rtol=1e-6)
    np.testing.assert_allclose(b, [[2.0 - 0.08]], rtol=1e-6)
    np.testing.assert_allclose(norms["gradient/norm"], 5.0, rtol=1e-6)  # before clipping
    np.testing.assert_allclose(norms["gradient/update_norm"], 0.1, rtol=1e-5)  # 0.1 * 1


def test_a_gradient_within_the_norm_is_left_alone():
    a = tf.Variable([0.0, 0.0])
    built(tf.keras.optimizers.SGD(global_clipnorm=10.0), 1.0, [a]).step(
        [tf.constant([3.0, 4.0])], START
    )
    np.testing.assert_array_equal(a, [-3.0, -4.0])


@pytest.mark.parametrize("jit", [False, True])
def test_the_learning_rate_follows_the_progress_of_the_run(jit):
    a = tf.Variable([0.0])
    scheduled = built(tf.keras.optimizers.SGD(learning_rate=77.0), Linear(1.0, 0.0), [a])
    step = tf.function(scheduled.step, jit_compile=jit, autograph=False)
    for progress, expected in ((0.0, -1.0), (0.5, -1.5), (1.0, -1.5)):  # rates 1, 0.5, 0
        step([tf.constant([1.0])], tf.constant(progress))
        np.testing.assert_allclose(a, [expected])


@pytest.mark.parametrize(
    ("rate", "expected"), [(2.0, [2.0, 1.0, 0.0]), (Linear(2.0, 1.0), [2.0, 0.75, 0.0])]
)
def test_a_schedule_multiplies_the_learning_rate(rate, expected):
    scheduled = Scheduled(tf.keras.optimizers.SGD(), rate, schedule=Linear(1.0, 0.0))
    found = [float(scheduled.learning_rate(tf.constant(progress))) for progress in (0.0, 0.5, 1.0)]
    assert found == expected  # at half the run: 2 * 0.5, and 1.5 * 0.5


def test_slots_are_in_the_order_of_the_variables_not_of_their_names():
    variables = [
        tf.Variable(tf.zeros([n]), name=f"dense_{n}") for n in (10, 9, 11)
    ]  # "dense_10" < "dense_9"
    scheduled = built(tf.keras.optimizers.Adam(), 0.1, variables)
    slots = [v.shape[0] for v in scheduled.keras.variables if v.shape.rank == 1]
    assert slots == [10, 10, 9, 9, 11, 11]  # first and second moment of each
    scheduled.step([tf.ones([n]) for n in (10, 9, 11)], START)
    assert [v.shape[0] for v in scheduled.keras.variables if v.shape.rank == 1] == slots


def test_one_gradient_is_asked_of_every_variable():
    scheduled = built(tf.keras.optimizers.SGD(), 0.1, [tf.Variable(0.0), tf.Variable(0.0)])
    with pytest.raises(ValueError, match="argument"):
        scheduled.step([tf.constant(1.0)], START)


def test_the_update_norm_is_of_the_change_itself():
    # with momentum 0.5 and gradient (3, 4) twice: the second change is 0.1 * (1 + 0.5) * 5 = 0.75
    a = tf.Variable([1.0, 1.0])
    scheduled = built(tf.keras.optimizers.SGD(momentum=0.5), 0.1, [a])
    g = [tf.constant([3.0, 4.0])]
    np.testing.assert_allclose(scheduled.step(g, HALF)["gradient/update_norm"], 0.5, rtol=1e-5)
    norms = scheduled.step(g, HALF)
    np.testing.assert_allclose(norms["gradient/update_norm"], 0.75, rtol=1e-5)
    np.testing.assert_allclose(norms["gradient/norm"], 5.0, rtol=1e-6)


def test_another_has_its_own_slots_and_tags_and_the_same_schedule() -> None:
    """Two of momentum 0.5 at rate 0.1: the first steps twice, by 0.1 and 0.15, the other once."""
    a = tf.Variable(1.0)
    b = tf.Variable(1.0)
    one = built(tf.keras.optimizers.SGD(momentum=0.5), Linear(0.2, 0.0), [a])
    other = one.another()
    other.build([b])
    for _ in range(2):
        norms = one.step([tf.constant(1.0)], HALF)
    theirs = other.step([tf.constant(1.0)], HALF, "critics")
    np.testing.assert_allclose([a, b], [1.0 - 0.1 - 0.15, 0.9], rtol=1e-6)
    assert list(norms) == ["gradient/norm", "gradient/update_norm"]
    assert list(theirs) == ["gradient/critics_norm", "gradient/critics_update_norm"]
    told = descriptions(["critics"])
    assert told["schedule/critics_learning_rate"] == "Critics: learning rate, mean over updates."


@pytest.mark.parametrize("jit", [False, True])
def test_a_step_that_is_not_due_changes_neither_weights_nor_moments(jit: bool) -> None:
    weight = tf.Variable([1.0, 2.0])
    scheduled = built(tf.keras.optimizers.Adam(), 0.1, [weight])
    step = tf.function(
        lambda due: scheduled.step([tf.constant([3.0, 4.0])], tf.constant(0.0), due=due),
        jit_compile=jit,
        autograph=False,
    )
    held = step(tf.constant(False))
    np.testing.assert_array_equal(weight, [1.0, 2.0])
    assert int(scheduled.keras.iterations) == 0
    assert float(held["gradient/update_norm"]) == 0.0
    # Adam's first step is the rate against the gradient's sign: its moments were not moved before
    moved = step(tf.constant(True))
    np.testing.assert_allclose(weight, [0.9, 1.9], rtol=1e-5)
    np.testing.assert_allclose(moved["gradient/update_norm"], 0.1 * 2**0.5, rtol=1e-4)
    assert int(scheduled.keras.iterations) == 1
