"""Options of config groups that were renamed: their old spellings keep working."""

import sys
from collections.abc import Sequence

# (group, old option) -> new option. `env=memory` read like the group `memory`, an agent's.
# Actors were on Reverb before they were on Ray.
OPTIONS = {("env", "memory"): "recall", ("actors", "reverb"): "ray"}


def renamed(overrides: Sequence[str]) -> list[str]:
    """Return overrides with old spellings replaced, each of them reported once on stderr."""
    return [_renamed(text) for text in overrides]


def hint(group: str, option: str) -> str:
    """Return the sentence that names the new spelling of an option, or ""."""
    new = OPTIONS.get((group, option))
    return f"{group}={option} is {group}={new} now. " if new else ""


def _renamed(text: str) -> str:
    group, equals, values = text.partition("=")
    options = values.split(",")
    for index, option in enumerate(options):
        if said := hint(group, option):
            print(f"sparring: {said}The old spelling still works.", file=sys.stderr)
            options[index] = OPTIONS[group, option]
    return f"{group}{equals}{','.join(options)}"
