"""What a person reads when a node has started: what listens where, and what to type next."""

import os
import sys
from collections.abc import Sequence
from typing import TextIO

from node.config import Config

_BOLD, _DIM, _GREEN, _CYAN = "bold", "dim", "green", "cyan"


def colored(color: str, stream: TextIO) -> bool:
    """Whether to write in colour: ``always``, ``never``, or as NO_COLOR and the terminal say."""
    if color != "auto":
        return color == "always"
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def serving(config: Config, machine: str, log_id: str, took_s: float) -> None:
    """Print the banner to standard error (data is for standard output)."""
    from rich.console import Console
    from rich.text import Text

    console = Console(
        stderr=True,
        force_terminal=colored(config.color, sys.stderr) or None,
        no_color=not colored(config.color, sys.stderr),
        highlight=False,
        soft_wrap=True,
    )
    console.print(Text.assemble(("corelog", _BOLD), " is serving ", (f"({took_s:.2f} s)", _DIM)))
    for what, where in _places(config, machine, log_id):
        console.print(Text.assemble("  ", (f"{what:<9}", _DIM), (where, _GREEN)))
    if hints := _hints(config):
        console.print("Type in another terminal:")
    for words, why in hints:
        console.print(Text.assemble("  ", (words, _CYAN), (f"   {why}", _DIM)))
    console.print(Text("Ctrl-C stops the node; its units run on.", _DIM))


def _places(config: Config, machine: str, log_id: str) -> Sequence[tuple[str, str]]:
    return [
        ("keys", ", ".join(config.etcd_urls) or "not listening"),
        ("gateway", ", ".join(f"http://{at}" for at in config.gateway_listen) or "not listening"),
        ("socket", str(config.folder / "run" / "corelog.sock")),
        ("log", f"{config.log_address} (id {log_id[:8]})"),
        ("machine", machine),
        ("data", str(config.folder)),
    ]


def _hints(config: Config) -> Sequence[tuple[str, str]]:
    command = "corelog" if config.data == Config().data else f"corelog --data {config.data}"
    hints = [
        (f"{command} cluster status", "who is master, what runs"),
        (f"{command} kv set /hello world", "write a key through the log"),
        (f"{command} log -f", "watch every event"),
    ]
    if config.etcd_urls and config.etcd_urls[0].startswith("http://"):
        hints.insert(1, (f"curl {config.etcd_urls[0]}/v2/keys/hello -XPUT -d value=world", "as etcd's clients do"))
    return hints
