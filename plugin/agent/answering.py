"""What the controller asks of the kernel beside counters: why packets arrive or do not, and what the tables hold."""

from __future__ import annotations

from sdn.model.errors import invalid, unavailable
from sdn.model.explanation import QUESTIONS_MAX, Explanation, FlowFilter, FlowTable, flow_table
from sdn.model.stream import Query
from sdn.reconcile.datapath import Datapath


def answer_about_packets(datapath: Datapath, query: Query) -> Explanation | FlowTable:
    """The answer to `explain` or `flows`; from any thread. Raises: INVALID, UNAVAILABLE, what the datapath raises."""
    if len(query.questions) > QUESTIONS_MAX:
        raise invalid(f"{len(query.questions)} questions at once", f"ask up to {QUESTIONS_MAX}")
    try:
        if query.what == "flows":
            return flow_table(datapath.flows(), query.flows or FlowFilter())
        return datapath.explain(query.questions)
    except OSError as error:
        raise unavailable(f"the host's tables cannot be read: {error}", "see the agent's log") from None
