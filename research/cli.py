"""`sparring <command> ...`. Nothing heavy is imported before a command runs: help and completion answer at once."""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

STARTED = time.time()


class Command(NamedTuple):
    """A command: where it is (`module:function`, called with the arguments after its name) and what it does."""

    target: str
    summary: str


COMMANDS = {
    "rl": Command("research.launch:rl", "train an agent: sparring rl agent=ppo env=cartpole"),
    "train": Command(
        "research.launch:train", "train from a config of yours: sparring train --config-name mine -cd conf"
    ),
    "evaluate": Command("research.evaluate:main", "evaluate a run: sparring evaluate runs/my_run --episodes 100"),
}


def main() -> None:
    """The console script."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return
    if arguments[0] in ("-sc", "--shell-completion"):
        _completion(arguments[1:])
        return
    name = arguments[0]
    if name not in COMMANDS:
        _fail(f"sparring {name}: no such command. There are: {', '.join(COMMANDS)}. See sparring --help.", 2)
    _run(COMMANDS[name], arguments[1:])


def _run(command: Command, arguments: Sequence[str]) -> None:
    from research.errors import UserError

    module, function = command.target.split(":")
    call: Callable[[Sequence[str]], int | None] = getattr(importlib.import_module(module), function)
    try:
        sys.exit(call(arguments) or 0)
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("stopped at once; the last checkpoint is what remains", 130)


def _fail(message: str, code: int) -> None:
    print(f"sparring: {message}", file=sys.stderr)
    sys.exit(code)


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: sparring <command> [arguments]\n\n"
        f"{lines}\n\n"
        '`sparring <command> --help` says more. Completion for bash: eval "$(sparring --shell-completion bash)"'
    )


_BASH = """_sparring() {
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "%s" -- "${COMP_WORDS[1]}")); return; fi
  local line="${COMP_WORDS[0]} ${COMP_WORDS[1]}"
  local words="${COMP_LINE#"$line"}"
  COMPREPLY=($(COMP_LINE="sparring$words" sparring --shell-completion query "${COMP_WORDS[1]}"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _sparring sparring"""


def _completion(arguments: Sequence[str]) -> None:
    """Print the shell's function (`bash`), or answer it (`query <command>`, the line in COMP_LINE)."""
    if list(arguments) == ["bash"]:
        print(_BASH % " ".join(COMMANDS))
    elif len(arguments) == 2 and arguments[0] == "query" and arguments[1] in COMMANDS:
        from research.launch import complete

        complete(arguments[1])
    else:
        _fail("--shell-completion takes bash", 2)
