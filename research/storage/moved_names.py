"""Names in configs of earlier versions, and their present equivalents.

A saved run or a user's YAML may name a class by the path that it had in an earlier layout of the
packages. `current` translates such a path; every other one is returned unchanged.
"""

import importlib.util
import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf, flag_override

import sparring
from sparring.errors import UserError

_log = logging.getLogger("sparring")
_said: set[str] = set()

PACKAGES = ("research", "agents", "envs", "gans")
MODULES = {
    "agents.actors": "sparring.agents.actors.driver",
    "agents.anatomy": "sparring.agents.training.time_breakdown",
    "agents.compiled": "sparring.agents.drivers.on_device",
    "agents.distributions": "sparring.agents.networks.distributions",
    "agents.dqn": "sparring.agents.dqn",
    "agents.evaluation": "sparring.agents.training.evaluation",
    "agents.export": "sparring.agents.training.policy_export",
    "agents.host": "sparring.agents.drivers.on_host",
    "agents.memory": "sparring.agents.networks.recurrent",
    "agents.networks": "sparring.agents.networks.headed",
    "agents.normalizers": "sparring.agents.networks.normalizers",
    "agents.off_policy": "sparring.agents.training.off_policy",
    "agents.on_policy": "sparring.agents.training.on_policy",
    "agents.ppo": "sparring.agents.ppo",
    "agents.replay": "sparring.agents.replay",
    "agents.rollout": "sparring.agents.training.rollout",
    "agents.specs": "sparring.agents.networks.specs",
    "agents.trainer": "sparring.agents.training.base",
    "envs.acrobot": "sparring.envs.compiled.acrobot",
    "envs.bridge": "sparring.envs.gymnasium_bridge.bridge",
    "envs.check": "sparring.envs.testing.check",
    "envs.classic": "sparring.envs.compiled.classic_control",
    "envs.compiled": "sparring.envs.compiled.base",
    "envs.drawing": "sparring.envs.compiled.canvas",
    "envs.draws": "sparring.envs.compiled.sampling",
    "envs.frozen_lake": "sparring.envs.compiled.frozen_lake",
    "envs.host": "sparring.envs.gymnasium_bridge.vector",
    "envs.lookup": "sparring.envs.gymnasium_bridge.env_lookup",
    "envs.masked": "sparring.envs.compiled.partial_observation",
    "envs.minatar": "sparring.envs.compiled.minatar",
    "envs.minatar.asterix": "sparring.envs.compiled.minatar.asterix",
    "envs.minatar.breakout": "sparring.envs.compiled.minatar.breakout",
    "envs.minatar.freeway": "sparring.envs.compiled.minatar.freeway",
    "envs.minatar.game": "sparring.envs.compiled.minatar.game",
    "envs.minatar.seaquest": "sparring.envs.compiled.minatar.seaquest",
    "envs.minatar.space_invaders": "sparring.envs.compiled.minatar.space_invaders",
    "envs.probe": "sparring.envs.testing.step_recorder",
    "envs.snapshot": "sparring.envs.gymnasium_bridge.episode_replay",
    "envs.spaces": "sparring.envs.gymnasium_bridge.spaces",
    "envs.static": "sparring.envs.compiled.static_shapes",
    "envs.stepper": "sparring.envs.compiled.host_stepper",
    "envs.throughput": "sparring.envs.compiled.throughput",
    "envs.toys": "sparring.envs.compiled.toys",
    "envs.vector": "sparring.envs.compiled.gymnasium_vector",
    "envs.workers": "sparring.envs.gymnasium_bridge.workers",
    "gans.alarms": "sparring.gans.diagnostics",
    "gans.anatomy": "sparring.gans.time_breakdown",
    "gans.augmentation": "sparring.gans.augmentation",
    "gans.ema": "sparring.gans.ema",
    "gans.evaluation": "sparring.gans.evaluation",
    "gans.export": "sparring.gans.export",
    "gans.game": "sparring.gans.adversarial_step",
    "gans.losses": "sparring.gans.losses",
    "gans.metrics": "sparring.gans.metrics",
    "gans.metrics.classifier": "sparring.gans.metrics.classifier",
    "gans.metrics.distances": "sparring.gans.metrics.distances",
    "gans.metrics.extractors": "sparring.gans.metrics.extractors",
    "gans.metrics.inception": "sparring.gans.metrics.inception",
    "gans.metrics.judged": "sparring.gans.metrics.classifier_scores",
    "gans.metrics.metric": "sparring.gans.metrics.base",
    "gans.metrics.mixtures": "sparring.gans.metrics.mode_coverage",
    "gans.metrics.plain": "sparring.gans.metrics.memorisation",
    "gans.metrics.scores": "sparring.gans.metrics.feature_scores",
    "gans.metrics.trained": "sparring.gans.metrics.trained_classifier",
    "gans.mixtures": "sparring.gans.data.mixtures",
    "gans.networks": "sparring.gans.networks.layers",
    "gans.penalties": "sparring.gans.penalties",
    "gans.pictures": "sparring.gans.image_grids",
    "gans.players": "sparring.gans.players",
    "gans.projected": "sparring.gans.networks.projected",
    "gans.rules": "sparring.gans.settings",
    "gans.spectral": "sparring.gans.networks.spectral_norm",
    "gans.stacked": "sparring.gans.data.stacked_digits",
    "gans.trainer": "sparring.gans.trainer",
    "research.anatomy": "sparring.benchmark.time_breakdown",
    "research.benchmark": "sparring.benchmark.cases",
    "research.charts": "sparring.supervised.plots",
    "research.checkpoint": "sparring.storage.checkpoints",
    "research.cli": "sparring.cli.main",
    "research.cluster": "sparring.distribute.cluster",
    "research.compile": "sparring.xla.compilation",
    "research.config": "sparring.config.composer",
    "research.crew": "sparring.distribute.consensus",
    "research.data": "sparring.data.dataset",
    "research.datasets": "sparring.data.arrays",
    "research.device": "sparring.distribute.device",
    "research.edge": "sparring.export.tflite_onnx",
    "research.errors": "sparring.errors",
    "research.evaluate": "sparring.cli.evaluate",
    "research.event_file": "sparring.tensorboard.event_file",
    "research.event_reader": "sparring.tensorboard.event_reader",
    "research.export": "sparring.export.saved_model",
    "research.finite": "sparring.training.finite",
    "research.fit": "sparring.training.loop",
    "research.forecasting": "sparring.supervised.forecasting",
    "research.gif": "sparring.tensorboard.gif",
    "research.hparams": "sparring.tensorboard.hparams",
    "research.image_folder": "sparring.data.image_folder",
    "research.interrupt": "sparring.processes.signals",
    "research.job": "sparring.sweep.job",
    "research.launch": "sparring.cli.train",
    "research.launcher": "sparring.sweep.hydra_plugins",
    "research.limits": "sparring.config.bounds",
    "research.localisation": "sparring.supervised.localization",
    "research.loop": "sparring.xla.loops",
    "research.machine": "sparring.processes.resources",
    "research.manifest": "sparring.storage.manifest",
    "research.means": "sparring.xla.running_means",
    "research.measures": "sparring.benchmark.measurements",
    "research.mistakes": "sparring.config.validation",
    "research.models": "sparring.supervised.models",
    "research.networks": "sparring.networks",
    "research.networks.cnn": "sparring.networks.cnn",
    "research.networks.hub": "sparring.networks.tf_hub",
    "research.networks.mlp": "sparring.networks.mlp",
    "research.networks.pretrained": "sparring.networks.pretrained",
    "research.networks.rnn": "sparring.networks.rnn",
    "research.networks.tokens": "sparring.networks.embeddings",
    "research.networks.weights": "sparring.networks.pretrained_weights",
    "research.object_graph": "sparring.storage.variable_names",
    "research.optimizers": "sparring.optim.optimizer",
    "research.philox": "sparring.data.host_random",
    "research.pool": "sparring.sweep.scheduler",
    "research.portions": "sparring.distribute.sharding",
    "research.precision": "sparring.optim.precision",
    "research.predictor": "sparring.supervised.export",
    "research.profile": "sparring.training.profiler",
    "research.progress": "sparring.training.progress",
    "research.projector": "sparring.tensorboard.projector",
    "research.provenance": "sparring.storage.provenance",
    "research.pruning": "sparring.optim.pruning",
    "research.random": "sparring.xla.random",
    "research.raw": "sparring.data.preprocessing",
    "research.recommendation": "sparring.supervised.recommendation",
    "research.record": "sparring.storage.run_folder",
    "research.report": "sparring.report",
    "research.report.analysis": "sparring.report.analysis",
    "research.report.board": "sparring.report.tensorboard_page",
    "research.report.charts": "sparring.report.charts",
    "research.report.command": "sparring.report.builder",
    "research.report.groups": "sparring.report.groups",
    "research.report.runs": "sparring.report.discovery",
    "research.report.statistics": "sparring.report.statistics",
    "research.report.tables": "sparring.report.tables",
    "research.rerun": "sparring.cli.rerun",
    "research.scaling": "sparring.benchmark.scaling",
    "research.schedules": "sparring.optim.schedules",
    "research.search": "sparring.cli.search",
    "research.serve": "sparring.cli.serve",
    "research.serving": "sparring.serving",
    "research.serving.about": "sparring.serving.request_context",
    "research.serving.app": "sparring.serving.routes",
    "research.serving.batching": "sparring.serving.batching",
    "research.serving.contract": "sparring.serving.rest_api",
    "research.serving.guard": "sparring.serving.middleware",
    "research.serving.instruments": "sparring.serving.metrics",
    "research.serving.keys": "sparring.serving.api_keys",
    "research.serving.limits": "sparring.serving.request_limits",
    "research.serving.refusal": "sparring.serving.errors",
    "research.serving.servable": "sparring.serving.model",
    "research.serving.server": "sparring.serving.server",
    "research.serving.sessions": "sparring.serving.sessions",
    "research.serving.shelf": "sparring.serving.model_repository",
    "research.shapes": "sparring.data.synthetic_shapes",
    "research.show": "sparring.cli.tensorboard",
    "research.signatures": "sparring.export.signatures",
    "research.space": "sparring.sweep.search_space",
    "research.stages": "sparring.optim.fine_tuning",
    "research.strategy": "sparring.distribute.replicas",
    "research.study": "sparring.sweep.study",
    "research.suites": "sparring.config.suites",
    "research.supervised": "sparring.supervised.trainer",
    "research.sweep": "sparring.sweep.sweep",
    "research.table": "sparring.sweep.live_table",
    "research.tables": "sparring.data.tabular",
    "research.targets": "sparring.config.targets",
    "research.tasks": "sparring.supervised.tasks",
    "research.tensorboard": "sparring.tensorboard.writer",
    "research.text": "sparring.data.text",
    "research.train": "sparring.training.experiment",
    "research.trainer": "sparring.training.trainer",
    "research.transfer": "sparring.training.warm_start",
    "research.versions": "sparring.export.model_versions",
    "research.workers": "sparring.distribute.local_workers",
}
NAMES = {  # names that moved apart from their module, or were changed
    "agents.compiled.Carry": "sparring.agents.drivers.on_device.DeviceState",
    "agents.evaluation.CompiledEvaluation": "sparring.agents.training.episodes.CompiledEpisodes",
    "agents.evaluation.Player": "sparring.agents.training.episodes.Player",
    "agents.evaluation.episodes": "sparring.agents.training.episodes.play",
    "agents.evaluation.video": "sparring.agents.training.film.video",
    "agents.host.Packed": "sparring.agents.drivers.on_host.HostRollout",
    "agents.places.Reverb": "sparring.agents.actors.settings.Ray",
    "agents.rollout.Source": "sparring.agents.training.rollout.RolloutSpec",
    "gans.game.Game": "sparring.gans.adversarial_step.AdversarialStep",
    "gans.metrics.plain.SlicedWasserstein": (
        "sparring.gans.metrics.sliced_wasserstein.SlicedWasserstein"
    ),
    "gans.networks.DCGANDiscriminator": "sparring.gans.networks.dcgan.DCGANDiscriminator",
    "gans.networks.DCGANGenerator": "sparring.gans.networks.dcgan.DCGANGenerator",
    "gans.networks.MLPDiscriminator": "sparring.gans.networks.mlp.MLPDiscriminator",
    "gans.networks.MLPGenerator": "sparring.gans.networks.mlp.MLPGenerator",
    "gans.networks.Pair": "sparring.gans.networks.pair.Pair",
    "gans.networks.doublings_of": "sparring.gans.networks.dcgan.doublings_of",
    "gans.players.Shown": "sparring.gans.players.DiscriminatorInputs",
    "gans.rules.Rules": "sparring.gans.settings.GameSettings",
    "research.benchmark.machine": "sparring.benchmark.machine.machine",
    "research.benchmark.main": "sparring.cli.benchmark.main",
    "research.charts.colours": "sparring.data.pictures.colours",
    "research.charts.levels": "sparring.data.pictures.levels",
    "research.charts.thumbnails": "sparring.data.pictures.thumbnails",
    "research.cli.strict": "sparring.cli.parser.strict",
    "research.compile.Direct": "sparring.xla.compilation.CachedCall",
    "research.config.listed": "sparring.errors.listed",
    "research.config.near": "sparring.errors.near",
    "research.crew.Alone": "sparring.distribute.consensus.SingleWorker",
    "research.crew.Crew": "sparring.distribute.consensus.Workers",
    "research.device.described": "sparring.benchmark.machine.described",
    "research.fit.Outcome": "sparring.training.outcome.Outcome",
    "research.fit.Schedule": "sparring.training.schedule.Schedule",
    "research.fit.write": "sparring.training.tensorboard_page.write_evaluation",
    "research.evaluate.learned": "sparring.training.trained_model.restored",
    "research.export.export": "sparring.cli.export.export",
    "research.export.main": "sparring.cli.export.main",
    "research.finite.variables": "sparring.storage.variable_names.named_variables",
    "research.job.program": "sparring.processes.spawn.program",
    "research.launch.documented": "sparring.cli.setup.documented",
    "research.launch.prepare": "sparring.cli.setup.prepare",
    "research.raw.Raw": "sparring.data.preprocessing.InputSpec",
    "research.record.describe": "sparring.training.tensorboard_page.describe",
    "research.record.flat": "sparring.storage.settings.flat",
    "research.record.hparams": "sparring.training.tensorboard_page.hparams",
    "research.record.plain": "sparring.storage.settings.plain",
    "research.record.replace": "sparring.storage.atomic.write_text",
    "research.record.settle": "sparring.training.tensorboard_page.settle",
    "research.report.command.main": "sparring.cli.report.main",
    "research.serving.keys.main": "sparring.cli.keys.main",
    "research.strategy.average": "sparring.distribute.replicas.all_reduce_mean",
    "research.strategy.compiled": "sparring.distribute.replicas.compile_in_replica",
    "research.strategy.count": "sparring.distribute.replicas.num_replicas",
    "research.strategy.divide_cpu": "sparring.distribute.strategies.divide_cpu",
    "research.strategy.from_first": "sparring.distribute.replicas.broadcast_from_first",
    "research.strategy.index": "sparring.distribute.replicas.replica_index",
    "research.strategy.inside": "sparring.distribute.strategies.variable_scope",
    "research.strategy.maximum": "sparring.distribute.replicas.all_reduce_max",
    "research.strategy.mine": "sparring.distribute.replicas.local_variable",
    "research.strategy.mirrored": "sparring.distribute.strategies.mirrored",
    "research.strategy.multi_worker": "sparring.distribute.strategies.multi_worker",
    "research.strategy.one_device": "sparring.distribute.strategies.one_device",
    "research.strategy.own": "sparring.distribute.replicas.replica_key",
    "research.strategy.part": "sparring.distribute.replicas.share_of_mean",
    "research.strategy.spread": "sparring.distribute.replicas.standard_deviation",
    "research.strategy.total": "sparring.distribute.replicas.all_reduce_sum",
    "research.strategy.tpu": "sparring.distribute.strategies.tpu",
    "research.sweep.job_name": "sparring.config.overrides.job_name",
    "research.sweep.quoted": "sparring.config.overrides.quoted",
    "research.sweep.safe": "sparring.config.overrides.safe",
    "research.table.Table": "sparring.sweep.live_table.LiveTable",
    "research.trainer.check_trainer": "sparring.training.conformance.check_trainer",
    "research.transfer.begin_with": "sparring.training.warm_start.load_weights",
    "research.transfer.hold": "sparring.training.warm_start.freeze_weights",
    "research.transfer.learned": "sparring.supervised.pretraining.pretrained_torso",
    "research.workers.wanted": "sparring.distribute.cluster.workers_to_start",
    "sparring.agents.actors.slots.Reverb": "sparring.agents.actors.settings.Ray",
    "research.data.check_finite": "sparring.data.checks.check_finite",
    "research.data.classes_of": "sparring.data.splits.classes_of",
    "research.data.few": "sparring.data.splits.few",
    "research.data.pixels": "sparring.data.pixel_values.pixels",
    "research.data.split_off": "sparring.data.splits.split_off",
    "agents.dqn.DoubleDQN": "sparring.agents.dqn.DQN",
    "sparring.agents.dqn.DoubleDQN": "sparring.agents.dqn.DQN",
}

# Arguments that what was once called so took, and that say nothing to what stands for it now
DROPPED = dict.fromkeys(
    ("agents.places.Reverb", "sparring.agents.actors.slots.Reverb"),
    ("here", "port", "seconds", "start_seconds"),
)
# Arguments that make what stands for it now what was once called so
IMPLIED: dict[str, dict[str, Any]] = {
    name: {"double": True} for name in ("agents.dqn.DoubleDQN", "sparring.agents.dqn.DoubleDQN")
}
# Modules of which nothing is left
_REVERB = "actors are processes of Ray's now, with nothing of that name: say actors=ray"
GONE = dict.fromkeys(
    (
        "agents.actor",
        "agents.places",
        "agents.wire",
        "research.actor",
        "sparring.agents.actors.learner",
        "sparring.agents.actors.slots",
        "sparring.agents.actors.transport",
    ),
    _REVERB,
)

# Settings that configs of earlier versions do not have, with the value that changes nothing
ADDED: dict[str, Any] = {
    "agent.boltzmann": None,
    "agent.double": False,
    "agent.head": None,
    "agent.intrinsic": None,
    "agent.kl_penalty": None,
    "agent.munchausen": None,
    "agent.noise_steps": 1,
    "agent.normalize_observations": False,
    "agent.share_network": False,
    "env.acceleration": 2.0,
    "env.channels": "auto",
    "env.action_mask": False,
    "env.curriculum": {},
    "env.frame_stack": 1,
    "env.info": [],
    "env.rescale_actions": False,
    "discriminator.dropout": 0.0,
    "reward_source.absorbing": False,
    "env.parts": "auto",  # of a picture among others it is flat, which a refusal says
    "trainer.replay._partial_": True,
    "trainer.replay._target_": "sparring.agents.replay.Ring",
    "trainer.evaluation.environment": None,
    "trainer.evaluation.max_episode_steps": None,
}


def current(target: str) -> str:
    """Return the present path of `target`, a dotted path as a config names it.

    Raises:
        UserError: nothing is left of what it named.
    """
    package = target.partition(".")[0]
    if package != "sparring" and (package not in PACKAGES or _is_a_users_package(package)):
        return target
    if target in NAMES:
        return NAMES[target]
    module, _, rest = target.rpartition(".")
    if module in GONE:
        raise UserError(f"_target_={target}: {GONE[module]}.")
    while module and module not in MODULES:
        module, _, inner = module.rpartition(".")
        rest = f"{inner}.{rest}"
    if not module:
        return target
    return f"{MODULES[module]}.{rest}"


def update(node: Any) -> Any:
    """Return nested mappings and lists with every `_target_` translated.

    Each translation is logged once.
    """
    if isinstance(node, dict):
        updated = {key: update(child) for key, child in node.items()}
        if isinstance(node.get("_target_"), str):
            updated["_target_"] = _announced(node["_target_"])
            for key in DROPPED.get(node["_target_"], ()):
                updated.pop(key, None)
            updated.update(IMPLIED.get(node["_target_"], {}))
        return updated
    if isinstance(node, list):
        return [update(child) for child in node]
    return node


def update_config(config: Any) -> None:
    """Translate every `_target_` of a composed config in place, wherever in it `config` is."""
    if not OmegaConf.is_config(config):
        return
    root = config._get_root()
    with flag_override(root, ["readonly", "struct"], [False, False]):
        _update_node(root)


def _update_node(node: Any) -> None:
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return
    keys = list(node.keys()) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        child = node._get_node(key)  # None of one that was dropped meanwhile
        if isinstance(child, DictConfig | ListConfig):
            _update_node(child)
        elif key == "_target_" and isinstance(child._value(), str):
            new = _announced(child._value())
            for dropped in DROPPED.get(child._value(), ()):
                node.pop(dropped, None)
            for implied, value in IMPLIED.get(child._value(), {}).items():
                node[implied] = value
            if new != child._value():
                child._set_value(new)


def _announced(target: str) -> str:
    new = current(target)
    if new != target and target not in _said:
        _said.add(target)
        _log.info("%s is %s now; the old name still works.", target, new)
    return new


def _is_a_users_package(name: str) -> bool:
    """Return whether a package of this name is importable and not a folder of Sparring's clone."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    clone = Path(sparring.__file__).resolve().parents[1]
    return all(
        Path(place).resolve().parent != clone for place in spec.submodule_search_locations or []
    )
