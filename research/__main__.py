"""`python -m research ...` is `sparring ...`."""

import sys
from pathlib import Path

# The working folder, which Python searches first here, may hold folders named like ours (conf/, agents/): search it last.
if not (Path(sys.path[0]) / "research" / "cli.py").is_file():
    sys.path.append(sys.path.pop(0))

from research.cli import main  # noqa: E402

main()
