"""``corelog``: dispatches to a file per family of commands, each imported only when it is used."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter

#: Name → where its app or function is, and its line in the help (which imports none of them).
FAMILIES: dict[str, tuple[str, str]] = {
    "up": ("node.cli.up:up", "Start a node on this machine."),
    "etcd": ("node.cli.etcd:etcd", "Start a node by etcd's flags, variables or file."),
    "cluster": ("node.cli.cluster:app", "The cluster as a whole."),
    "machine": ("node.cli.machine:app", "Machines: list, drain, label, remove."),
    "unit": ("node.cli.unit:app", "Units: submit, start, stop, list, journal."),
    "kv": ("node.cli.kv:app", "Read and write keys."),
    "update": ("node.cli.update:app", "Publish, stage, switch and roll back versions."),
    "discovery": ("node.cli.discovery:app", "The discovery service in front of another etcd."),
    "log": ("node.cli.log:app", "The log: list, follow, show; verify, copy, move, void, trim."),
    "why": ("node.cli.history:why", "Why is it so: the chain of causes down to who asked."),
    "diff": ("node.cli.history:diff", "What differs in the whole cluster between two instants."),
    "audit": ("node.cli.audit:app", "Who did what and when, from the log on Kafka."),
}
#: Their words are read by themselves: etcd's flags may have one dash.
OWN_FLAGS = frozenset({"etcd"})
USAGE, INTERRUPTED = 2, 130
#: The script only defines a function: found on fpath it has to be called, sourced it has to be made known.
_ZSH = """
if [[ "${funcstack[1]}" == (_corelog|_cyclopts_corelog) ]]; then
  _cyclopts_corelog "$@"
else
  compdef _cyclopts_corelog corelog
fi
"""


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("corelog")
    except PackageNotFoundError:
        return "0"


def build(argv: Sequence[str]) -> App:
    """The app, with the one family that ``argv`` names (all of them when a completion is made)."""
    app = App(name="corelog", help="CoreOS's control plane as event-sourced actors on a log.", version=_version)
    named = next((word for word in argv if word in FAMILIES), "")
    everything = bool(argv) and (argv[0] == "completion" or "--install-completion" in argv)
    for name, (where, line) in FAMILIES.items():
        module, _, attribute = where.partition(":")
        if importlib.util.find_spec(module) is None:
            continue  # a family that this installation was made without
        if (name == named or everything) and name not in OWN_FLAGS:
            app.command(getattr(importlib.import_module(module), attribute), name=name)
        else:
            app.command(App(name=name, help=line, help_flags=[], version_flags=[]))
    app.command(_completion, name="completion")
    app.register_install_completion_command(add_to_startup=False)
    return app


def _completion(shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Whose completion.")]) -> None:
    """Print a shell's completion script: corelog completion bash > /etc/bash_completion.d/corelog"""
    script = build(["completion"]).generate_completion(prog_name="corelog", shell=shell)
    print(script + (_ZSH if shell == "zsh" else ""))


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; exits with the codes of the documentation (0, 1, 2, 3, 4, 5, 6, 130)."""
    from node.cli.client import reorder

    given = list(sys.argv[1:] if argv is None else argv)
    try:
        if given and given[0] in OWN_FLAGS:
            module, _, attribute = FAMILIES[given[0]][0].partition(":")
            result = getattr(importlib.import_module(module), attribute)(given[1:])
        else:
            words = reorder(given)
            result = build(words)(words, exit_on_error=False, print_error=True, result_action="return_value")
    except CycloptsError:
        sys.exit(USAGE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.stderr.close()  # who read our output has gone; nothing is wrong
        sys.exit(0)
    except Exception as error:
        code = getattr(error, "exit_code", None)
        if not isinstance(code, int):
            raise
        print(f"corelog: {error}", file=sys.stderr)
        sys.exit(code)
    sys.exit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
