"""Pure decisions of the coordination actor: when to stand for election, who is absent, who shall follow.

All times are durations on this machine's boot-time clock; none is compared with another machine's.
"""

from collections.abc import Mapping
from typing import NamedTuple

from actors.coordination.election import EPSILON
from actors.coordination.state import ClusterState
from streams.events import log as log_says
from streams.events.base import Event, say
from streams.replay import LEVEL, LogState

#: An own append that took longer than this to come back: the log was not live, absence must not be counted over it.
LOG_SLOW_S = 0.5
#: A renewal is overdue after this part of L: challengers ask early whether the log is live (see docs/decisions).
OVERDUE = 0.5
#: Challengers claim one after the other within this span, by rank.
JITTER_MAX_S = 0.15
#: Every machine says this often that it lives; one such renewal may come this much earlier, to share a record.
SEEN_S = 1.0
SEEN_EARLY_S = 0.13
#: After a resignation the others wait this long for the successor that it names.
SUCCESSOR_S = 0.1


def levels(log: LogState, cluster: ClusterState) -> list[Event]:
    """What the master says when all who write this log know a higher feature level than the one that it has.

    Writers of machines that were removed are asked no more.
    """
    if log.level >= LEVEL or log.behind(LEVEL, cluster.removed):
        return []
    removed = {writer.rpartition("@")[2] for writer in log.behind(LEVEL)}
    return [say(log_says.LevelRaised(LEVEL, sorted(removed)))]


def candidates(cluster: ClusterState) -> list[str]:
    """Machines that may be master, in the order in which they should claim: drained ones late, the last holder last."""
    last = cluster.election.last_holder
    machines = [machine for machine in cluster.machines.values() if machine.control and machine.alive]
    return [m.id for m in sorted(machines, key=lambda m: (m.id == last, m.drained, m.id in cluster.withheld, m.id))]


def countdown_s(cluster: ClusterState, machine: str, lease_s: float) -> float:
    """How long ``machine`` waits after it applied the election's last change before it stands.

    A holder's lease must have run out on every clock; nobody has to be waited for when the term is free.
    """
    ranks = candidates(cluster)
    rank = ranks.index(machine) if machine in ranks else len(ranks)
    jitter_s = JITTER_MAX_S * min(1.0, rank / max(1, len(ranks) - 1))
    election = cluster.election
    if election.holder:
        return lease_s * (1 + EPSILON) + jitter_s
    if not election.successor:
        return jitter_s
    return 0.0 if election.successor == machine else SUCCESSOR_S + jitter_s


def successor(cluster: ClusterState, machine: str, heard_s: Mapping[str, float], now_s: float) -> str:
    """Whom a holder that resigns should name: the first candidate that was heard lately; "" if there is none."""
    for name in candidates(cluster):
        if name != machine and now_s - heard_s.get(name, float("-inf")) <= SEEN_S + LOG_SLOW_S:
            return name
    return ""


class Absence(NamedTuple):
    """``lost``: to be given up, by reason; ``withheld``: too many at once, by reason; ``mass``: whether it is so now;
    ``wake_at_s``: when to look again."""

    lost: dict[str, str]
    withheld: list[str]
    reason: str
    mass: bool
    wake_at_s: float | None


def absent(
    cluster: ClusterState,
    machine: str,
    heard_s: Mapping[str, float],
    lost_s: Mapping[str, float],
    now_s: float,
    ttl_s: float,
) -> Absence:
    """Which machines the holder (``machine``) has not heard of for ``ttl_s``, and whether that looks like one death
    or like the death of everyone.

    heard_s   when each machine's last renewal was applied here, or countdowns were restarted
    lost_s    when machines were given up in this term; those of the last ``ttl_s`` count as vanished together,
              and all of them as long as others are withheld

    A machine that missed one renewal is a suspect. More than a quarter of the machines, and at least two, vanished
    together: nothing is given up, they are withheld. Withheld machines stay so until they are seen, join again or are
    removed by an operator, or until so many came back that the rest no longer looks like the death of everyone: then
    the caller gives the rest a fresh countdown, after which they are lost like any other.
    """
    alive = [m.id for m in cluster.machines.values() if m.alive]
    silent_s = {name: now_s - heard_s.get(name, now_s) for name in alive if name != machine}
    gone = [name for name, s in silent_s.items() if s >= ttl_s]
    suspects = [name for name, s in silent_s.items() if s >= max(ttl_s - SEEN_S, SEEN_S + LOG_SLOW_S)]
    lately = [
        name
        for name, at_s in lost_s.items()
        if name not in silent_s and (cluster.withheld or now_s - at_s < ttl_s) and name in cluster.machines
    ]
    vanished, total = len(suspects) + len(lately), len(alive) + len(lately)
    mass = vanished >= 2 and vanished * 4 > total
    waiting = [heard_s.get(name, now_s) + ttl_s for name in silent_s if name not in gone]
    wake_at_s = min(waiting, default=None)
    if not mass:
        lost = {name: f"not seen for {silent_s[name]:.1f} s" for name in gone}
        return Absence(lost, [], "", False, wake_at_s)
    fresh = [name for name in gone if name not in cluster.withheld]
    if len(gone) < len(suspects):
        fresh = []  # some may still be heard: wait until it is clear how many there are
    reason = f"{vanished} of {total} machines vanished within {ttl_s:g} s: nothing is moved"
    return Absence({}, fresh, reason, True, wake_at_s)
