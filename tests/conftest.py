"""Settings of all tests, made before TensorFlow or pygame is imported by any of them."""

import logging
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator

import pytest

import sparring  # noqa: F401  chooses legacy Keras, which works only before TensorFlow is imported
from sparring.distribute import strategies

# Environments draw and play sound through SDL; without a screen or a sound card it would complain
# on every render.
os.environ["SDL_VIDEODRIVER"] = "dummy"
os.environ["SDL_AUDIODRIVER"] = "dummy"
os.environ["no_proxy"] = (
    "127.0.0.1,localhost"  # servers of tests are asked straight, whatever proxy this machine has
)


# Tests in which TensorFlow's version plays no part: .ci/run has them run on one of the two
EITHER = (
    "tests/agents/actors/",
    "tests/agents/imitation/",
    "tests/agents/test_distributional.py",
    "tests/agents/test_intrinsic.py",
    "tests/agents/test_kl_penalty.py",
    "tests/agents/test_q_memories.py",
    "tests/agents/test_sac.py",
    "tests/agents/test_skill_discovery.py",
    "tests/agents/test_td3.py",
    "tests/agents/test_variants.py",
    "tests/agents/training/test_parts.py",
    "tests/benchmark/",
    "tests/envs/compiled/",
    "tests/gans/metrics/",
    "tests/gans/networks/test_dropout.py",
    "tests/gans/networks/test_residual.py",
    "tests/gans/sequences/",
    "tests/gans/test_adaptive_augmentation.py",
    "tests/gans/test_differentiable_augmentation.py",
    "tests/gans/test_sampling.py",
    "tests/test_examples.py",
    "tests/test_paths.py",
    "tests/config/",
    "tests/envs/gymnasium_bridge/",
    "tests/envs/testing/",
    "tests/report/",
    "tests/sweep/",
    "tests/tensorboard/",
    "tests/cli/",
    "tests/test_docs.py",
    "tests/test_imports.py",
    "tests/test_setup.py",
    "tests/test_words.py",
    "tests/training/test_run_faults.py",
    "tests/training/test_old_runs.py",
)
# Tests of seconds that show on one more example what a neighbour shows: `make test-slow` has them
REPEATS = re.compile(
    "|".join(
        (
            r"test_replicas.py::test_two_replicas_are_one\w*\[(ppo_host|ppo_pruned|lazy)\]",
            r"test_replicas.py::test_the_contract_is_kept_by_two_replicas\[dqn\]",
            r"test_base.py::test_the_contract_is_kept\[ppo-normalized\]",
            r"test_recurrent.py::test_the_contract_is_kept\w*\[host\]",
            r"test_recurrent.py::test_a_sequence_has_the_values\w*\[(lstm-graph|gru-xla)\]",
            r"test_minatar.py::test_every_promise\w*\[(?!breakout)",
            r"test_check.py::test_what_keeps_its_promises\w*\[(Mountain|Pendulum|Acro|Memory|Point)",
            r"test_classic_control.py::test_the_same_step\w*\[Acrobot",
            r"test_classic_control.py::test_an_episode_is_cut\w*\[(Acrobot|MountainCarC)",
            r"test_call_path.py::\w*\[gan\]",
            r"supervised/test_trainer.py::test_the_contract_is_kept\[(normalised|bfloat16)\]",
            r"supervised/test_replicas.py::test_two_replicas\w*\[(convolutions|regression|pruned)\]",
            r"test_export.py::test_small_devices_agree\[series\]",
            r"test_warm_start.py::test_layers_of_an_agent_can_be_frozen\[dqn\]",
            r"actors/test_driver.py::test_actors_that_are_ahead",
            r"actors/test_driver.py::test_actors_compute\w*\[memory\]",
            r"actors/test_driver.py::test_an_actor_that_is_lost_again",
            r"actors/test_driver.py::test_an_environment_that_raises",
            r"test_replicas.py::test_a_run_goes_on_with_another_number",
            r"test_replicas.py::test_two_replicas_are_one\w*\[(ppo|sac|td3)\]",
            r"test_parts.py::test_what_is_not_allowed\w*\[stacked_on_host-ppo",
            r"test_parts.py::test_what_is_not_allowed\w*\[stacked_compiled-ppo\]",
            r"test_box_heads.py::test_ppo_keeps_its_contract\w*\[BetaHead",
            r"test_variants.py::test_they_train_by_their_configs",
            r"test_examples.py::test_a_gan_is_trained",
            r"test_(sqil|replayed|dagger).py::test_the_contract_is_kept_by_environments_on_the_host",
            r"test_replayed.py::test_(two_replicas_learn|the_contract_is_kept$|sac_and_priorities)",
            r"test_sqil.py::test_(xla_computes|sac_imitates)",
            r"test_cases.py::test_training_is_measured_with_shares_that_add_up",
            r"test_cases.py::test_a_gans_shares_add_up",
            r"test_conf.py::test_a_suite_is_a_sweep\w*\[(?!gan_toy|rl_classic)",
        )
    )
)
# Of what is run once in CI, that which is run on both: an experiment of each kind
BOTH = re.compile(
    r"test_an_experiment_runs\[(ppo_cartpole|dqn_breakout|gan_digits|supervised_shapes)\]"
)
# Files that last longest, which are begun first so that no worker is left alone with one at the end
LONGEST = (
    "tests/training/test_resume.py",
    "tests/config/test_conf.py",
    "tests/training/test_old_runs.py",
    "tests/distribute/test_multi_worker.py",
    "tests/report/test_tensorboard_page.py",
    "tests/agents/",
    "tests/gans/",
    "tests/config/test_validation.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need to run on one TensorFlow only, or seldom; the longest come first."""
    for item in items:
        if item.nodeid.startswith(EITHER) and not BOTH.match(item.name):
            item.add_marker(pytest.mark.either)
        if REPEATS.search(item.nodeid):
            item.add_marker(pytest.mark.slow)
    ranks = {path: rank for rank, path in enumerate(LONGEST)}

    def rank(item: pytest.Item) -> int:
        return min((r for p, r in ranks.items() if item.nodeid.startswith(p)), default=len(ranks))

    items.sort(key=rank)


# For tests of replicas; what uses the first part alone computes as if it were the only one
strategies.divide_cpu(2)


@pytest.fixture(autouse=True)
def lab_is_forgotten() -> Iterator[None]:
    """Forget the package that pages call my_lab: each page, and its test, has another."""
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "my_lab"]:
        del sys.modules[name]


@pytest.fixture
def limit() -> Iterator[Callable[[int], None]]:
    """Sets the size beyond which this process can write no file, which fails as a full disk does;
    -1: no limit.

    Handlers that other libraries gave the root logger write to files of pytest's, which the limit
    would stop too.
    """
    root = logging.getLogger()
    theirs = [handler for handler in root.handlers if type(handler) is logging.StreamHandler]
    for handler in theirs:
        root.removeHandler(handler)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(
        resource.RLIMIT_FSIZE, (size if size >= 0 else soft, hard)
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for handler in theirs:
        root.addHandler(handler)
