"""EnvPool's vectorised environments: Atari and MuJoCo, stepped together in C++.

EnvPool steps a whole vector at a time, resets on the next step as Gymnasium's vectors do, and
takes its seed when it is made. Its episodes cannot be replayed, so a resumed run opens new ones.
"""

import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, VectorEnv

from sparring.envs.gymnasium_bridge.bridge import Gymnasium
from sparring.envs.gymnasium_bridge.env_lookup import missing_package
from sparring.errors import UserError, near

_ATARI = "episodic_life"  # a setting that its Atari games alone have


class Pool(VectorEnv):
    """Vector of EnvPool's environments, made anew for each seed.

    Args:
        num_envs: how many.
        task: EnvPool's name of the environment, such as "Pong-v5".
        whole_games: of Atari: whole games by their own score; else an episode ends with a life,
            and rewards are clipped to -1 and 1.
        render_mode: "rgb_array" or None.
        settings: EnvPool's own, such as `max_episode_steps` and `frame_skip`.

    Raises:
        UserError: EnvPool has no such setting.
    """

    def __init__(
        self,
        num_envs: int,
        task: str,
        whole_games: bool = False,
        render_mode: str | None = None,
        **settings: Any,
    ) -> None:
        envpool = _imported()
        known = envpool.make_spec(task).config._fields
        for name in settings:
            if name not in known:
                raise UserError(
                    f"env.kwargs.{name}: EnvPool's {task} has no such setting. "
                    f"{near(name, known)}".strip()
                )
        render_modes: list[str] = []
        if _ATARI in known:
            settings = {"episodic_life": not whole_games, "reward_clip": not whole_games} | settings
            render_modes = ["rgb_array"]  # drawing MuJoCo ends this process without a display
        if render_mode is not None:
            settings["render_mode"] = render_mode
        self.num_envs = num_envs
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": render_modes}
        self._make: Any = envpool.make_gymnasium
        self._arguments = {"task_id": task, "num_envs": num_envs, **settings}
        self._pool = self._made(0)
        self.single_observation_space = self._pool.single_observation_space
        self.single_action_space = self._pool.single_action_space

    def _made(self, seed: int) -> Any:
        with warnings.catch_warnings():  # of bounds that are rounded
            warnings.simplefilter("ignore")
            return self._make(seed=seed % 2**31, **self._arguments)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Open an episode in every environment; the i-th has seed + i, if one is given."""
        del options
        if seed is not None:
            self._pool.close()
            self._pool = self._made(seed)
        return self._pool.reset()

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every environment with `actions` [B, ...]."""
        return self._pool.step(actions)

    def render(self) -> Any:
        """Return a picture of the first environment, uint8 [1, H, W, 3]."""
        return self._pool.render()

    def close_extras(self, **kwargs: Any) -> None:
        """End EnvPool's threads."""
        del kwargs
        self._pool.close()


class EnvPool(Gymnasium):
    """Environment of EnvPool's, named in a config.

    Args:
        id: EnvPool's name of it, such as "Pong-v5" or "Hopper-v4".
        kwargs: EnvPool's settings of it.
        whole_games: of Atari: whole games by their own score; else an episode ends with a life,
            and rewards are clipped to -1 and 1.
        max_episode_steps: truncate there instead of where EnvPool does.
        info: names of numbers in a step's info whose values at the end of an episode are logged.
        frame_stack: how many of the newest observations an agent sees at once; EnvPool's games give
            stacks of 4 unless the setting `stack_num` is 1.

    Raises:
        UserError: no such environment or setting, or EnvPool is not installed.
    """

    def __init__(
        self,
        id: str,
        kwargs: Mapping[str, Any] | None = None,
        whole_games: bool = False,
        max_episode_steps: int | None = None,
        info: Sequence[str] = (),
        frame_stack: int = 1,
    ) -> None:
        super().__init__(
            id,
            {"whole_games": whole_games, **(kwargs or {})},
            vectorization="vector_entry_point",
            max_episode_steps=max_episode_steps,
            channels="first",
            info=info,
            frame_stack=frame_stack,
        )

    def _find(self, id: str) -> tuple[str | None, EnvSpec]:
        """Return EnvPool's environment of that name as a specification of Gymnasium's."""
        entry = f"{__name__}:{Pool.__name__}"
        spec = EnvSpec(id=str(id), vector_entry_point=entry, kwargs={"task": str(id)})
        try:
            envpool = _imported()
        except ImportError as error:
            raise missing_package(spec, error) from error
        known = envpool.list_all_envs()
        if id not in known:
            raise UserError(
                f"env.id={id} is not one of EnvPool's {len(known)} environments. "
                f"{near(str(id), known)}env=gymnasium has those of Gymnasium."
            )
        spec.max_episode_steps = int(envpool.make_spec(id).config.max_episode_steps)
        return None, spec

    def _require_rendering(self) -> None:
        """Draw nothing beforehand: EnvPool draws Atari's games without a display."""


def _imported() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import envpool  # here, as it takes a while, and may be missing
    return envpool
