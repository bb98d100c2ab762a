"""Why a unit is not where it shall be, in words: the reason, and for some machines why not there."""

from typing import NamedTuple

from actors.scheduler.fit import kind_of

#: Machines named one by one; of the others it is only counted what keeps the unit away.
NAMED_MAX = 64


class Verdict(NamedTuple):
    """Empty reason: it is where it shall be."""

    reason: str = ""
    machines: dict[str, str] = {}


SETTLED = Verdict()


def no_machine(whys: dict[str, str]) -> Verdict:
    """How often each kind of reason is given, and the reasons of some machines."""
    if not whys:
        return Verdict("no machine has joined")
    counts: dict[str, int] = {}
    for why in whys.values():
        counts[kind_of(why)] = counts.get(kind_of(why), 0) + 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    summary = ", ".join(f"{kind} {count}" for kind, count in ordered)
    return Verdict(f"no machine fits: {summary}", named(whys))


def named(whys: dict[str, str]) -> dict[str, str]:
    """The first machines by id."""
    return {machine: whys[machine] for machine in sorted(whys)[:NAMED_MAX]}


def untallied(reason: str) -> str:
    """A reason without how often each kind was given."""
    head, found, _ = reason.partition("no machine fits:")
    return head + found
