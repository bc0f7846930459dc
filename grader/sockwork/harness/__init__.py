"""What the checks of the labs are written with.

A check is a function `test_…(bed)` under @check. A verb of Bed, Run, Connection or Listener whose
expectation does not hold raises Failed; everything a verb does is recorded as a step.
"""

from sockwork.facts import Address, Host, Packet, Resources, Row, Status
from sockwork.harness.bed import Bed
from sockwork.harness.connection import Connection
from sockwork.harness.declare import check
from sockwork.harness.failure import Failed
from sockwork.harness.listener import Listener
from sockwork.harness.rules import Rule
from sockwork.harness.run import ACCEPTS, READS, WAITS, WRITES, Run

__all__ = [
    "ACCEPTS",
    "Address",
    "Bed",
    "Connection",
    "Failed",
    "Host",
    "Listener",
    "Packet",
    "Resources",
    "READS",
    "Row",
    "Rule",
    "Run",
    "Status",
    "WAITS",
    "WRITES",
    "check",
]
