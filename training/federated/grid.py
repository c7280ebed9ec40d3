"""A Flower grid whose nodes are ClientApps in this process, one after another.

Flower's own simulation engine needs ray, and its deployment engine starts a process for every message. ServerApp,
ClientApp, strategy, mods and the SecAgg+ workflow are Flower's; only the carriage of messages is this.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

PARTITION = "partition-id"
FIRST_NODE = SUPERLINK_NODE_ID + 1


class InProcessGrid(Grid):
    """Nodes, each with a context of its own. Messages go both ways as the bytes that they would be on a wire.

    Args:
        app: What each node runs.
        nodes: n.
    """

    def __init__(self, app: ClientApp, nodes: int) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 0, SUPERLINK_NODE_ID  # as its engines do
        self._app = app
        self._contexts = {
            FIRST_NODE + node: Context(0, FIRST_NODE + node, {PARTITION: node}, RecordDict(), {})
            for node in range(nodes)
        }
        self._replies: dict[str, Message] = {}
        self._ids = itertools.count(1)

    def set_run(self, run: Run) -> None:
        """There is one run."""

    @property
    def run(self) -> Run:
        """An empty one: clients are told its number."""
        return Run.create_empty(0)

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """As Flower's grids."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """All of them."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Runs each message's node; the replies wait to be pulled."""
        pushed = []
        for message in messages:
            name = str(next(self._ids))
            message.metadata.__dict__["_message_id"] = name  # a reply names what it answers; Flower's grids do likewise
            reply = self._app(_carried(message), self._contexts[message.metadata.dst_node_id])
            self._replies[name] = _carried(reply)
            pushed.append(name)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies, once each."""
        return [self._replies.pop(name) for name in message_ids]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Both; nodes answer before this returns, so ``timeout`` is not looked at."""
        return self.pull_messages(self.push_messages(messages))


def _carried(message: Message) -> Message:
    """The message as its receiver reads it: nothing in it is shared with the sender's."""
    return message_from_proto(MessageProto.FromString(message_to_proto(message).SerializeToString()))
