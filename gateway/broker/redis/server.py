"""What the links to one server have in common: where it is, and what one of them learns that concerns the others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from bullmq_proxy.gateway.broker.redis.address import Address
from bullmq_proxy.gateway.log_events import LogEvent

if TYPE_CHECKING:
    from bullmq_proxy.gateway.broker.redis.link import Link

LEFT: Final = "another server has become the master"
"""Why a link leaves an address, or does not begin with it."""
_MOST_REASONS: Final = 5  # lines of the log on one trouble, beside the first and the last one


class Server:
    """One server for all links of a shard that lead to it. Sentinels and clusters say by `locate` where it is now.

    Attributes:
        links: those that are kept up.
        needs_master: whether a replica will not do.
        is_found: whether others say where it is: what is a replica now is soon not asked any more.
        has_slots: whether it is a node of a cluster.
        retry: the longest pause between two attempts to connect, in seconds.
    """

    needs_master = True
    is_found = False
    has_slots = False
    retry = 2.0

    def __init__(self, address: Address) -> None:
        self.address = address
        self.links: set[Link] = set()
        self._trouble: set[Link] = set()  # links that are down
        self._since = 0.0
        self._reasons: set[str] = set()  # that the log has

    @property
    def shown(self) -> str:
        """The server for people and logs."""
        return self.address.shown

    async def locate(self, link: Link) -> Address:
        """Return where to connect to now, for the next attempt of `link`.

        Raises:
            RedisRefused: nobody will ever know.
            GatewayError: REDIS_UNAVAILABLE, nobody knows now.
        """
        return self.address

    def has_left(self, address: Address) -> bool:
        """Return whether the server is known to be elsewhere now than `locate` has said."""
        return False

    def failing(self) -> Link | None:
        """Return a link that cannot come back, if there is one."""
        return next((link for link in self.links if link.is_failing), None)

    def moved(self, word: str, reply: object) -> None:
        """Take note of a MOVED or such in reply to a command of a link that blocks."""

    # What a link says

    def joined(self, link: Link) -> None:
        """Count a link in, which begins to connect."""
        self.links.add(link)

    async def left(self, link: Link) -> None:
        """Count a link out, which is closed."""
        self.links.discard(link)
        self._trouble.discard(link)

    def up(self, link: Link) -> None:
        """Let the others try at once, now that one is connected."""
        self._recovered(link)
        for other in self.links:
            other.hurry()

    def down(self, link: Link, reason: str) -> None:
        """Take note that a link is down. The log gets a line when the first one is, and for each new reason."""
        if not self._trouble:
            self._since = asyncio.get_running_loop().time()
            self._reasons.clear()
        self._trouble.add(link)
        if reason not in self._reasons and len(self._reasons) <= _MOST_REASONS:
            self._reasons.add(reason)
            LogEvent.LINK_LOST.log(server=self.shown, reason=reason)

    def silent(self, link: Link) -> None:
        """Give up all links to a server that has not answered one of them in time."""
        for other in tuple(self.links):
            if other is not link and other.leads_to == link.leads_to:
                other.give_up("no reply in time on another connection")

    def _recovered(self, link: Link) -> None:
        if link in self._trouble:
            self._trouble.remove(link)
            if not self._trouble:
                seconds = asyncio.get_running_loop().time() - self._since
                LogEvent.LINK_BACK.log(server=self.shown, seconds=seconds)
