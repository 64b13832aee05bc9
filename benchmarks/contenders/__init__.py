"""Who is measured: this project, what limits it, and its peers."""

from benchmarks.contenders.contender import Contender, Kind
from benchmarks.contenders.limits import LIMITS
from benchmarks.contenders.ours import OURS
from benchmarks.contenders.peers import PEERS

CONTENDERS: tuple[Contender, ...] = (*OURS, *LIMITS, *PEERS)

__all__ = ["CONTENDERS", "Contender", "Kind"]
