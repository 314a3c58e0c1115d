"""TF-Agents' agents, mended, and the trainers that drive them."""

import contextlib
import warnings

# TF-Agents imports the retired Gym, which prints a plea to upgrade at every start; nothing here
# uses Gym.
with contextlib.suppress(ImportError):
    from gym_notices import notices as _notices

    _notices.notices.clear()
# TF-Agents' source compares with literals by `is`, which Python says at every start that has no
# bytecode cached.
warnings.filterwarnings("ignore", category=SyntaxWarning, module=r"tf_agents\..*")
warnings.filterwarnings("ignore", message=r'"is( not)?" with a literal', category=SyntaxWarning)
