"""`sparring <command> ...`. Nothing heavy is imported before a command runs: help and completion
answer at once.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple, NoReturn

from sparring.errors import UserError, tell


class Command(NamedTuple):
    """A command: where it is (`module:function`, called with the arguments after its name) and what
    it does.

    `config` is the primary config whose keys a shell completes, if its arguments are keys.
    """

    target: str
    summary: str
    config: str | None = None


COMMANDS = {
    "rl": Command(
        "sparring.cli.train:rl", "train an agent: sparring rl agent=ppo env=cartpole", "rl"
    ),
    "gan": Command(
        "sparring.cli.train:gan", "train a GAN: sparring gan data=ring loss=hinge penalty=r1", "gan"
    ),
    "imitation": Command(
        "sparring.cli.train:imitation",
        "train an agent on an expert's steps: sparring imitation env=cartpole expert=mine.npz",
        "imitation",
    ),
    "supervised": Command(
        "sparring.cli.train:supervised",
        "train a model on examples: sparring supervised data=digits",
        "supervised",
    ),
    "train": Command(
        "sparring.cli.train:train",
        "train from a config of yours: sparring train --config-dir conf --config-name mine",
        "rl",
    ),
    "check": Command(
        "sparring.envs.testing.command:main",
        "check an environment of yours: sparring check env=gymnasium env.id=my_module:MyEnv",
        "rl",
    ),
    "evaluate": Command(
        "sparring.cli.evaluate:main", "evaluate a run: sparring evaluate runs/my_run --episodes 100"
    ),
    "demonstrate": Command(
        "sparring.cli.demonstrate:main",
        "record a run's episodes for imitation: sparring demonstrate runs/my_run --episodes 10",
    ),
    "sample": Command(
        "sparring.cli.sample:main",
        "draw examples from a GAN's run: sparring sample runs/my_run --count 100 --out samples",
    ),
    "report": Command(
        "sparring.cli.report:main", "statistics over seeds: sparring report runs/my_sweep"
    ),
    "search": Command(
        "sparring.cli.search:main",
        "look for good settings: sparring search rl agent=ppo --trials 40",
    ),
    "rerun": Command(
        "sparring.cli.rerun:main", "run a run again, to the last bit: sparring rerun runs/my_run"
    ),
    "tensorboard": Command(
        "sparring.cli.tensorboard:main",
        "look at runs in TensorBoard: sparring tensorboard runs/my_sweep",
    ),
    "export": Command(
        "sparring.cli.export:main", "export a run's model: sparring export runs/my_run --name cart"
    ),
    "serve": Command(
        "sparring.cli.serve:main",
        "serve exported models over HTTP: sparring serve models --port 8501",
    ),
    "keys": Command(
        "sparring.cli.keys:main", "who may ask a server: sparring keys keys.json add alice"
    ),
    "benchmark": Command(
        "sparring.cli.benchmark:main", "measure speed: sparring benchmark --repeats 5"
    ),
}


def main() -> None:
    """Run the console script."""
    try:
        call, arguments = _command(sys.argv[1:])
        code = call(arguments)
        sys.stdout.flush()
        sys.exit(code or 0)
    except BrokenPipeError:  # whoever read our output, such as `| head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except UserError as error:
        tell(error)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _fail("stopped at once; the last checkpoint is what remains", 130)


def _command(arguments: Sequence[str]) -> tuple[Callable[[Sequence[str]], int | None], list[str]]:
    """Return the function that a command line calls, and its arguments."""
    name = arguments[0] if arguments else "--help"
    rest = list(arguments[1:])
    if name in ("-h", "--help", "help"):
        return _print_help, rest
    if name == "--version":
        return _print_version, rest
    if name in ("-sc", "--shell-completion"):
        return _completion, rest
    if name not in COMMANDS:
        _fail(
            f"sparring {name}: no such command. There are: {', '.join(COMMANDS)}. See sparring "
            "--help.",
            2,
        )
    module, function = COMMANDS[name].target.split(":")
    return getattr(importlib.import_module(module), function), rest


def _print_help(arguments: Sequence[str]) -> None:
    del arguments
    print(_help())


def _print_version(arguments: Sequence[str]) -> None:
    del arguments
    print(f"sparring {_version()}")


def _fail(message: str, code: int) -> NoReturn:
    print(f"sparring: {message}", file=sys.stderr)
    sys.exit(code)


def _version() -> str:
    try:
        return metadata.version("sparring")
    except metadata.PackageNotFoundError:
        return f"in {Path(__file__).resolve().parents[2]}, not installed"


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return (
        "usage: sparring <command> [arguments]\n\n"
        f"{lines}\n\n"
        "`sparring <command> --help` says more. Completion for bash and zsh:\n"
        '  eval "$(sparring --shell-completion bash)"  (zsh: autoload -U bashcompinit && '
        "bashcompinit first)"
    )


_BASH = """_sparring() {
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "%s" -- "${COMP_WORDS[1]}")); return; fi
  local line="${COMP_LINE:0:$COMP_POINT}"
  COMPREPLY=($(COMP_LINE="sparring${line#*"${COMP_WORDS[1]}"}" \\
    "${COMP_WORDS[0]}" --shell-completion query "${COMP_WORDS[1]}" 2>/dev/null))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _sparring sparring"""


def _completion(arguments: Sequence[str]) -> None:
    """Print the shell's function (`bash`), or answer it (`query <command>`, the line in
    COMP_LINE).
    """
    if list(arguments) == ["bash"]:
        print(_BASH % " ".join(COMMANDS))
    elif len(arguments) == 2 and arguments[0] == "query" and arguments[1] in COMMANDS:
        name = COMMANDS[arguments[1]].config
        if name is not None:
            from sparring.cli.train import complete

            complete(name)
    else:
        _fail("--shell-completion takes bash", 2)
