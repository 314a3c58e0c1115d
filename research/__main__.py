"""`python -m research ...` is `sparring ...`."""

import sys
from pathlib import Path

# Python searches the working folder first here; it may hold folders named like ours (conf/, agents/): make it the last.
if not (Path(sys.path[0]) / "research" / "cli.py").is_file():
    sys.path.append(sys.path.pop(0))

from research.cli import main

main()
