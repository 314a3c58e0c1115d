"""SAC's numbers by hand, with critics and a policy whose weights are set."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces

from sparring.agents.conformance import check_agent
from sparring.agents.networks.critics import CriticEnsemble
from sparring.agents.networks.part_encoders import PartEncoders
from sparring.agents.networks.regularized import BatchRenorm, Learning, RegularizedMLP
from sparring.agents.replay import Transitions
from sparring.agents.sac import SAC
from sparring.errors import UserError
from sparring.networks.mlp import MLP
from sparring.optim.optimizer import Scheduled
from sparring.xla import random

START = tf.constant(0.0)
KEY = tf.constant([1, 2], tf.uint32)
SEEN = spaces.Box(-100, 100, (1,))
BOX = spaces.Box(-2.0, 2.0, (1,))
LINEAR = functools.partial(MLP, ())  # features are what is seen


def make(learning_rate=0.0, optimizer=None, box=BOX, **settings) -> SAC:
    """Critics Q1 = s + a and Q2 = 2 s + a, `a` within -1 and 1; a policy of mean 0 and deviation
    1 before tanh, whatever is seen; gamma is 1/2 unless said otherwise.
    """
    scheduled = Scheduled(optimizer or tf.keras.optimizers.SGD(), learning_rate)
    usual = {"discount": 0.5, "temperature": 0.1}
    agent = SAC(SEEN, box, LINEAR, scheduled, **usual | settings)
    for ensemble in (agent.critics, agent.target_critics):
        if ensemble is not None:
            set_critics(ensemble, [[1.0, 1.0], [2.0, 1.0]])
    for weight in agent.policy.trainable_weights:
        weight.assign(tf.zeros_like(weight))
    return agent


def set_critics(ensemble: CriticEnsemble, kernels) -> None:
    for critic, kernel in zip(ensemble.critics, kernels, strict=True):
        critic.value.kernel.assign([[k] for k in kernel])


def transitions(*rows) -> Transitions:
    """From (observation, action, reward, discount, next observation, mask) each."""
    columns = [tf.constant(c, tf.float32) for c in zip(*rows, strict=True)]
    observation, action, reward, discount, after, mask = columns
    return Transitions(observation, action, reward, discount, after, mask)


GOES_ON = ([1.0], [1.0], 3.0, 1.0, [4.0], 1.0)  # the action is 0.5 when scaled
TERMINATED = ([1.0], [-2.0], 3.0, 0.0, [4.0], 1.0)  # -1 when scaled
NOTHING = ([50.0], [2.0], 90.0, 1.0, [70.0], 0.0)


def drawn(agent: SAC, fold: int, count: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The policy's draws, tanh of standard normals z, and their log probabilities:
    log N(z) - log(1 - tanh(z)^2).
    """
    z = random.normal(random.fold(random.members(KEY, count), fold), 1).numpy()[:, 0]
    action = np.tanh(z)
    log_prob = -0.5 * z**2 - 0.5 * math.log(2 * math.pi) - np.log(1.0 - action**2)
    return action, log_prob


# ---- the critics ---------------------------------------------------------------------------------


def test_the_target_is_the_least_value_less_the_draws_log_probability():
    agent = make()
    scalars, errors = agent.update(transitions(GOES_ON), KEY, START)
    action, log_prob = drawn(agent, 0)
    # Q1(s', a') = 4 + a', the least; 3 + 1/2 (4 + a' - 0.1 log p) against 1.5 and 2.5
    target = 3.0 + 0.5 * (4.0 + action[0] - 0.1 * log_prob[0])
    missed = np.abs([target - 1.5, target - 2.5])
    np.testing.assert_allclose(errors, [missed.mean()], rtol=1e-5)
    np.testing.assert_allclose(scalars["q/td_error"], missed.mean(), rtol=1e-5)
    np.testing.assert_allclose(scalars["q/mean"], 2.0, rtol=1e-6)
    np.testing.assert_allclose(scalars["loss/critic"], 0.5 * np.sum(missed**2), rtol=1e-5)


def test_a_termination_does_not_bootstrap_and_what_is_no_transition_does_not_count():
    agent = make()
    scalars, errors = agent.update(transitions(TERMINATED, NOTHING), KEY, START)
    # 3 against 1 - 1 = 0 and 2 - 1 = 1: errors 3 and 2; a mean over one transition
    np.testing.assert_allclose(errors, [2.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(scalars["loss/critic"], 0.5 * (9.0 + 4.0), rtol=1e-6)
    np.testing.assert_allclose(scalars["q/mean"], 0.5, rtol=1e-6)


def test_a_row_weighs_as_its_mask_says_in_a_mean_over_transitions():
    light = (*TERMINATED[:5], 0.25)
    scalars, errors = make().update(transitions(TERMINATED, light), KEY, START)
    # (1 + 1/4) / 2 of one row's 6.5
    np.testing.assert_allclose(scalars["loss/critic"], 0.625 * 6.5, rtol=1e-6)
    np.testing.assert_allclose(errors, [2.5, 2.5], rtol=1e-6)  # as far as they are off


def test_the_critics_gradient_by_hand():
    agent = make(learning_rate=1.0, temperature=1e-9)
    agent.update(transitions(TERMINATED), KEY, START)
    # Errors -3 and -2: kernels move by 3 and 2 times (s, a) = (1, -1), biases by 3 and 2
    first, second = (critic.value for critic in agent.critics.critics)
    np.testing.assert_allclose(first.kernel[:, 0], [1.0 + 3.0, 1.0 - 3.0], rtol=1e-6)
    np.testing.assert_allclose(second.kernel[:, 0], [2.0 + 2.0, 1.0 - 2.0], rtol=1e-6)
    np.testing.assert_allclose([first.bias[0], second.bias[0]], [3.0, 2.0], rtol=1e-6)


def test_targets_begin_as_copies_and_follow_by_tau():
    fresh = SAC(SEEN, BOX, functools.partial(MLP, (3,)))
    for a, b in zip(fresh.critics.variables, fresh.target_critics.variables, strict=True):
        assert a is not b
        np.testing.assert_array_equal(a, b)
    agent = make(target_tau=0.25)
    set_critics(agent.target_critics, [[5.0, 1.0], [2.0, 1.0]])
    for left in (0.75, 0.75**2):  # of the 4 between target and critic
        agent.update(transitions(GOES_ON), KEY, START)
        kernel = agent.target_critics.critics[0].value.kernel
        np.testing.assert_allclose(kernel[0, 0], 1.0 + 4.0 * left, rtol=1e-6)


def test_the_next_state_is_valued_by_the_targets():
    agent = make()
    set_critics(agent.target_critics, [[10.0, 0.0], [20.0, 0.0]])
    _, errors = agent.update(transitions(GOES_ON), KEY, START)
    _, log_prob = drawn(agent, 0)
    target = 3.0 + 0.5 * (40.0 - 0.1 * log_prob[0])
    np.testing.assert_allclose(errors, [target - 2.0], rtol=1e-5)


# ---- the policy ----------------------------------------------------------------------------------


def test_the_policys_loss_and_entropy_by_hand():
    agent = make()
    scalars, _ = agent.update(transitions(GOES_ON, NOTHING), KEY, START)
    action, log_prob = drawn(agent, 3, 2)
    # The critics' least at s = 1 is Q1 = 1 + a
    loss = 0.1 * log_prob[0] - (1.0 + action[0])
    total, weight = scalars["loss/policy"]
    np.testing.assert_allclose([total, weight], [loss, 1.0], rtol=1e-5)
    np.testing.assert_allclose(scalars["policy/entropy"][0], -log_prob[0], rtol=1e-5)
    np.testing.assert_allclose(scalars["policy/temperature"][0], 0.1, rtol=1e-6)


def test_the_policys_gradient_by_hand():
    """Of mean m: the loss is t log p - Q with a = tanh(m + z), so that da/dm = 1 - a^2 and
    d log p / dm = 2 a; of the log deviation the same times z, less 1 for log p.
    """
    agent = make(learning_rate=1.0, temperature=0.1)
    # Critics' rate is 1 too: their step comes first, so zero it by values that are right
    set_critics(agent.critics, [[1.0, 1.0], [1.0, 1.0]])
    batch = transitions(([1.0], [0.0], 1.0, 0.0, [0.0], 1.0))
    agent.update(batch, KEY, START)
    action, _ = drawn(agent, 3)
    z = np.arctanh(action)
    of_mean = 0.1 * 2.0 * action - (1.0 - action**2)
    of_log_std = 0.1 * (2.0 * action * z - 1.0) - (1.0 - action**2) * z
    head = agent.policy.head
    np.testing.assert_allclose(head.mean.bias, -of_mean, rtol=1e-4)
    np.testing.assert_allclose(head.log_std.bias, -of_log_std, rtol=1e-4)


def test_the_policy_climbs_what_it_is_told_to():
    losses = {}
    for kind in ("min", "mean", "first"):
        critics = functools.partial(CriticEnsemble, policy_value=kind)
        agent = make(critics=critics, temperature=1e-9)
        set_critics(agent.critics, [[2.0, 0.0], [1.0, 0.0]])
        losses[kind] = float(agent.update(transitions(GOES_ON), KEY, START)[0]["loss/policy"][0])
    assert losses == pytest.approx({"min": -1.0, "mean": -1.5, "first": -2.0}, rel=1e-5)


def test_the_temperature_rises_while_there_is_less_entropy_than_wanted():
    _, log_prob = drawn(make(), 3)
    entropy = -log_prob[0]
    for wanted in (None, 2.0):
        agent = make(learning_rate=0.5, temperature=None, target_entropy=wanted)
        agent.update(transitions(GOES_ON), KEY, START)
        missing = (-1.0 if wanted is None else wanted) - entropy  # minus the number of actions
        np.testing.assert_allclose(agent.learned_temperature.log, 0.5 * missing, rtol=1e-5)


def test_entropy_is_of_scaled_actions_whatever_the_bounds():
    wide = spaces.Box(-200.0, 200.0, (1,))
    far = ([1.0], [100.0], 3.0, 1.0, [4.0], 1.0)  # GOES_ON's action in those bounds
    one = make().update(transitions(GOES_ON), KEY, START)[0]
    other = make(box=wide).update(transitions(far), KEY, START)[0]
    for tag, value in one.items():
        np.testing.assert_allclose(other[tag], value, rtol=1e-6, err_msg=tag)


def test_the_policy_learns_at_every_period_and_only_then():
    agent = make(0.01, tf.keras.optimizers.Adam(), temperature=None, policy_period=3)
    update = tf.function(agent.update, jit_compile=True, autograph=False)
    head = agent.policy.head.mean.bias
    moved = []
    weights = []
    for _ in range(6):
        before = [head.numpy(), agent.learned_temperature.log.numpy()]
        scalars, _ = update(transitions(GOES_ON), KEY, START)
        after = [head.numpy(), agent.learned_temperature.log.numpy()]
        moved.append([bool(np.any(a != b)) for a, b in zip(after, before, strict=True)])
        weights.append(float(scalars["loss/policy"][1]))
    assert moved == [[False, False], [False, False], [True, True]] * 2
    assert weights == [0.0, 0.0, 1.0] * 2
    assert int(agent.optimizers["policy"].keras.iterations) == 2
    assert int(agent.optimizers["critics"].keras.iterations) == 6


# ---- at the bounds -------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [50.0, -1e4])
def test_actions_at_a_bound_have_finite_losses_and_gradients(mean):
    """Tanh rounds to 1 there: log(1 - tanh^2) would be minus infinity."""
    agent = make(0.1, temperature=None)
    agent.policy.head.mean.bias.assign([mean])
    seen = tf.zeros([3, 1])
    action = agent.act_sampled(seen, random.members(KEY, 3), START)
    np.testing.assert_array_equal(action, np.full([3, 1], 2.0 * np.sign(mean)))
    at_bound = ([1.0], [2.0 * np.sign(mean)], 3.0, 1.0, [4.0], 1.0)
    scalars, errors = agent.update(transitions(at_bound), KEY, START)
    values = [*tf.nest.flatten(scalars), errors, *agent.trainable]
    assert all(np.all(np.isfinite(value)) for value in values)


def test_actions_are_within_the_bounds_and_spread_over_them():
    box = spaces.Box(np.float32([0.1, -3.0]), np.float32([0.3, 5.0]))
    agent = SAC(SEEN, box, LINEAR)
    keys = random.members(KEY, 4000)
    random_actions = agent.act_random(tf.zeros([4000, 1]), keys).numpy()
    assert np.all((random_actions >= box.low) & (random_actions <= box.high))
    # Uniform: the mean is off by five standard errors, span / sqrt(12 * 4000), at most
    span = box.high - box.low
    assert np.all(np.abs(random_actions.mean(0) - [0.2, 1.0]) < 5 * span / np.sqrt(48_000))
    np.testing.assert_allclose(agent.act_greedy(tf.zeros([1, 1])), [[0.2, 1.0]], rtol=1e-5)
    np.testing.assert_allclose(agent.unscaled(agent.scaled(box.high[None])), box.high[None])


# ---- DroQ, CrossQ --------------------------------------------------------------------------------


def test_without_targets_present_and_next_rows_are_one_batch_of_the_critics():
    """Of joined rows (s, a) = (1, 0.5) and (4, a') the critics' inputs have means 2.5 and
    (0.5 + a') / 2, which become the running ones with momentum 0.
    """
    renorm = functools.partial(BatchRenorm, momentum=0.0)
    network = functools.partial(RegularizedMLP, (), batch_renorm=renorm)
    critics = functools.partial(CriticEnsemble, network=network)
    agent = make(critics=critics, target_tau=None)
    assert agent.target_critics is None
    _, errors = agent.update(transitions(GOES_ON), KEY, START)
    action, log_prob = drawn(agent, 0)
    mean = np.array([2.5, (0.5 + action[0]) / 2.0])
    np.testing.assert_allclose(agent.critics.critics[0].torso.renorms[0].mean, mean, rtol=1e-5)
    # Two rows normalise to minus and plus d / sqrt(d^2 + epsilon), d half their difference
    half = np.array([1.5, (action[0] - 0.5) / 2.0])
    unit = half / np.sqrt(half**2 + 1e-3)
    # Q1 = n . (1, 1) and Q2 = n . (2, 1), now of -unit, next of unit
    now = np.array([-unit.sum(), -unit.sum() - unit[0]])
    after = min(unit.sum(), unit.sum() + unit[0])
    target = 3.0 + 0.5 * (after - 0.1 * log_prob[0])
    np.testing.assert_allclose(errors, [np.abs(target - now).mean()], rtol=1e-4)


def test_no_gradient_passes_through_the_target_without_target_networks():
    agent = make(learning_rate=1.0, target_tau=None, temperature=1e-9)
    agent.update(transitions(GOES_ON), KEY, START)
    action, _ = drawn(agent, 0)
    # Of Q1: the error 1.5 - 3 - 1/2 (4 + a') times (s, a) = (1, 0.5), and nothing of s' = 4
    error = 1.5 - 3.0 - 0.5 * (4.0 + action[0])
    kernel = agent.critics.critics[0].value.kernel[:, 0]
    np.testing.assert_allclose(kernel, [1.0 - error, 1.0 - 0.5 * error], rtol=1e-5)


def test_the_policys_moments_are_of_its_own_steps_and_of_transitions_alone():
    renorm = functools.partial(BatchRenorm, momentum=0.0)
    network = functools.partial(RegularizedMLP, (), batch_renorm=renorm)
    critics = functools.partial(CriticEnsemble, network=LINEAR)
    scheduled = Scheduled(tf.keras.optimizers.SGD(), 0.0)
    agent = SAC(SEEN, BOX, network, scheduled, critics=critics, policy_period=2)
    found = []
    for _ in range(2):
        agent.update(transitions(GOES_ON, NOTHING), KEY, START)
        found.append(float(agent.policy.torso.renorms[0].mean[0]))
    assert found == [0.0, 1.0]  # not 50, of what is no transition


def test_critics_drop_by_keys_of_their_own_and_acting_drops_nothing():
    network = functools.partial(RegularizedMLP, (64,), dropout=0.5)
    agent = SAC(SEEN, BOX, critics=functools.partial(CriticEnsemble, network=network))
    for critic in agent.critics.critics:
        critic.set_weights(agent.critics.critics[0].get_weights())
    inputs = (tf.ones([3, 1]), tf.ones([3, 1]))
    first, second = agent.critics(inputs, Learning(random.members(KEY, 3))).numpy()
    assert np.all(first != second)  # alike but for what was dropped
    assert np.unique(first).size == 3  # rows too
    acting = agent.critics(inputs).numpy()
    assert np.unique(acting).size == 1
    again = agent.critics(inputs, Learning(random.members(KEY, 3)))
    np.testing.assert_array_equal(again[0], first)


# ---- pictures, parts, refusals -------------------------------------------------------------------


def test_of_pictures_the_network_encodes_and_the_action_is_joined_behind_it():
    picture = spaces.Box(0, 255, (2, 2, 1), np.uint8)
    agent = SAC(picture, BOX, functools.partial(MLP, (3,)))
    critic = agent.critics.critics[0]
    assert critic.encoder.hidden[0].kernel.shape == (4, 3)
    assert critic.torso.hidden[0].kernel.shape == (3 + 1, 256)
    full = tf.fill([1, 2, 2, 1], tf.constant(255, tf.uint8))
    np.testing.assert_array_equal(agent.prepared(full), np.ones([1, 2, 2, 1]))


def test_every_scalar_is_described():
    for temperature in (None, 0.1):
        agent = make(temperature=temperature)
        scalars = agent.update(transitions(GOES_ON), KEY, START)[0]
        rates = {tag for tag in agent.descriptions if tag.startswith("schedule/")}
        assert set(scalars) == set(agent.descriptions) - rates
        assert len(rates) == len(agent.optimizers)


def test_a_subclass_changes_what_the_next_state_is_valued_by():
    class Hopeful(SAC):
        def next_actions(self, observation, keys, progress):
            action, bonus = super().next_actions(observation, keys, progress)
            return tf.ones_like(action), tf.zeros_like(bonus)

    agent = Hopeful(SEEN, BOX, LINEAR, Scheduled(tf.keras.optimizers.SGD(), 0.0), discount=0.5)
    for ensemble in (agent.critics, agent.target_critics):
        set_critics(ensemble, [[1.0, 1.0], [2.0, 1.0]])
    _, errors = agent.update(transitions(GOES_ON), KEY, START)
    np.testing.assert_allclose(errors, [3.0 + 0.5 * 5.0 - 2.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("seen", "actions", "memory", "message"),
    [
        (SEEN, spaces.Discrete(2), None, r"SAC chooses vectors of numbers, .* Discrete\(2\)"),
        (SEEN, spaces.Box(-1, 1, (2, 2)), None, "SAC chooses vectors of numbers"),
        (SEEN, spaces.Box(-np.inf, 1, (1,)), None, "SAC needs finite bounds of actions"),
        (
            spaces.Dict(observation=SEEN, action_mask=spaces.Box(0, 1, (1,), np.uint8)),
            BOX,
            None,
            "an action_mask cannot forbid any",
        ),
        (SEEN, BOX, object(), "agent.memory: SAC learns from single transitions"),
    ],
)
def test_what_it_cannot_do_is_refused(seen, actions, memory, message):
    with pytest.raises(UserError, match=message):
        SAC(seen, actions, memory=memory)


def test_what_the_policy_climbs_is_one_of_a_list():
    with pytest.raises(UserError, match=r"policy_value=max: choose one of min, mean, first"):
        SAC(SEEN, BOX, critics=functools.partial(CriticEnsemble, policy_value="max"))


def test_layers_that_the_target_would_share_are_refused():
    same = tf.keras.layers.Dense(4)
    with pytest.raises(UserError, match="the target network would be the online one"):
        SAC(SEEN, BOX, critics=functools.partial(CriticEnsemble, network=lambda: same))


def test_the_gradient_is_clipped_as_a_whole():
    agent = make(1.0, tf.keras.optimizers.SGD(global_clipnorm=0.5))
    scalars, _ = agent.update(transitions(TERMINATED), KEY, START)
    # 3 and 2 times (1, -1, 1): sqrt(3 * (9 + 4))
    np.testing.assert_allclose(scalars["gradient/critics_norm"], 39**0.5, rtol=1e-5)
    np.testing.assert_allclose(scalars["gradient/critics_update_norm"], 0.5, rtol=1e-5)


@pytest.mark.long
def test_a_camera_and_joints_keep_the_protocol():
    parts = spaces.Dict(camera=spaces.Box(0, 255, (4, 4, 1), np.uint8), joints=SEEN)
    small = functools.partial(MLP, (4,))
    agent = functools.partial(
        SAC,
        network=lambda: PartEncoders(picture=small, vector=small),
        critics=functools.partial(CriticEnsemble, network=small),
        normalize_observations=True,
    )
    check_agent(agent, parts, BOX)


def test_a_network_that_does_not_join_parts_is_refused():
    parts = spaces.Dict(camera=spaces.Box(0, 255, (4, 4, 1), np.uint8), joints=SEEN)
    with pytest.raises(UserError, match=r"of several parts .* which MLP does not join"):
        SAC(parts, BOX, functools.partial(MLP, (4,)))
