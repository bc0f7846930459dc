"""The figure of one conversation: calls, states and packets of both ends, on one time axis.

`lay_out` decides what stands where; `terminal`, `svg` and `player` only draw it.
"""

from sockwork.figure.conversation import Conversation, End, conversations
from sockwork.figure.layout import Deviation, Layout, lay_out

__all__ = ["Conversation", "Deviation", "End", "Layout", "conversations", "lay_out"]
