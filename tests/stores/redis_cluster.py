"""A real Redis Cluster on one machine: masters that share the slots, and replicas that take over from them."""

import contextlib
import itertools
import socket
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from nearkin.embedded.programs import LOOPBACK, free_port
from nearkin.stores.redis_client import Client, open_redis
from stores.redis_process import RedisProcess
from waiting import until

#: Without a word for so long, a node is taken for dead, in milliseconds.
NODE_TIMEOUT_MS = 1000

#: Nodes talk to each other on their port and so many more.
_BUS = 10_000


class Node(RedisProcess):
    """One node, asked by itself."""

    def __init__(self, data: Path) -> None:
        # A replica stands for election however old what it holds is: these tests make it old.
        options = {"enabled": "yes", "node-timeout": str(NODE_TIMEOUT_MS), "replica-validity-factor": "0"}
        super().__init__(data, *(part for name, value in options.items() for part in (f"--cluster-{name}", value)))
        self.port = _free_port()

    def ask(self, *command: Any) -> Any:
        with redis.Redis(LOOPBACK, self.port, decode_responses=True, socket_timeout=10) as connection:
            return connection.execute_command(*command)

    @property
    def id(self) -> str:
        return str(self.ask("CLUSTER MYID"))

    @property
    def peers(self) -> int:
        """How many nodes it has met, itself among them."""
        return sum("handshake" not in node["flags"] for node in self.ask("CLUSTER NODES").values())

    @property
    def role(self) -> str:
        return str(self.ask("ROLE")[0])

    @property
    def follows(self) -> int:
        """The port of the master that it is a replica of."""
        return int(self.ask("INFO", "replication")["master_port"])

    @property
    def is_in_step(self) -> bool:
        """Whether it is a replica that has all of its master."""
        answer = self.ask("INFO", "replication")
        return answer["role"] == "slave" and answer["master_link_status"] == "up"


class ClusterProcess:
    """Started on entry and gone on exit.

    Args:
        data: a folder for the nodes' folders.
        masters: how many share the slots.
        replicated: whether each master has a replica.

    Attributes:
        nodes: the masters that it begins with, then the replica of each.
    """

    def __init__(self, data: Path, masters: int = 3, replicated: bool = False) -> None:
        self._masters = masters
        self.nodes: list[Node] = []
        for number in range(masters * (2 if replicated else 1)):
            folder = data / f"node-{number}"
            folder.mkdir(parents=True)
            self.nodes.append(Node(folder))
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.enter_context(node)
            self._join()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(f'{LOOPBACK}:{node.port}' for node in self.nodes)}"

    def client(self) -> Client:
        return open_redis(self.url)

    @property
    def masters(self) -> list[Node]:
        return [node for node in self.nodes if node.runs and node.role == "master"]

    def master_of(self, key: str) -> Node:
        """Who takes writes of a key."""
        slot = key_slot(key.encode())
        ranges = self.masters[0].ask("CLUSTER SLOTS")
        (port,) = {master[1] for low, high, master, *_ in ranges if low <= slot <= high}
        return next(node for node in self.nodes if node.port == port)

    def replica_of(self, master: Node) -> Node:
        """The node that has all of a master."""
        return next(node for node in self.nodes if node.runs and node.is_in_step and node.follows == master.port)

    def configure(self, **options: str) -> None:
        for node in self.nodes:
            node.configure(**options)

    @property
    def is_whole(self) -> bool:
        """Whether all that run serve all slots, and miss none of their masters."""
        running = [node for node in self.nodes if node.runs]
        return all(node.ask("CLUSTER INFO")["cluster_state"] == "ok" for node in running)

    def _join(self) -> None:
        share = REDIS_CLUSTER_HASH_SLOTS // self._masters + 1
        for number, master in enumerate(self.nodes[: self._masters]):
            # Their epochs differ from the beginning, or they would have to agree on that first.
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(number * share, min((number + 1) * share, REDIS_CLUSTER_HASH_SLOTS))
            master.ask("CLUSTER", "ADDSLOTS", *slots)
        for one, other in itertools.combinations(self.nodes, 2):
            one.ask("CLUSTER", "MEET", LOOPBACK, other.port)
        until(lambda: all(node.peers == len(self.nodes) for node in self.nodes), "all nodes have met")
        replicas = self.nodes[self._masters :]
        for master, replica in zip(self.nodes, replicas, strict=False):
            replica.ask("CLUSTER", "REPLICATE", master.id)
        until(lambda: all(replica.is_in_step for replica in replicas), "the replicas are in step")
        until(lambda: self.is_whole, "the cluster serves all slots")


def _free_port() -> int:
    """A port that is free together with that of its bus."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError):
            if port + _BUS < 2**16:
                socket.create_server((LOOPBACK, port + _BUS)).close()
                return port
