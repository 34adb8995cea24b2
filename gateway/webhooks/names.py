"""The addresses of one endpoint: its name is resolved once for many connections, and each address is looked at."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

from bullmq_proxy.gateway.webhooks.guard import ForbiddenAddressError, Guard

_FRESH: Final = 10.0  # s for which a name stays resolved, for connections that are made meanwhile

Place = tuple[int, int, int, str, tuple[Any, ...]]
"""Family, type, protocol, and address of a socket, as `getaddrinfo` gives them."""


class Names:
    """The addresses of one endpoint."""

    def __init__(self, host: str, port: int, guard: Guard) -> None:
        """Make it; `guard` says where they may go."""
        self._host = host
        self._port = port
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._places: list[Place] = []
        self._until = 0.0  # loop time
        self._asking: asyncio.Task[None] | None = None

    async def places(self) -> list[Place]:
        """Return the addresses that may be connected to, each time with another one first.

        Raises:
            ForbiddenAddressError: there are others alone.
            OSError: the name cannot be resolved.
            ValueError: it is no name.
        """
        if self._loop.time() >= self._until:
            await asyncio.shield(self._asking or self._ask())
        self._places.append(self._places.pop(0))
        allowed, refusal = [], None
        for place in self._places:
            try:
                self._guard.check(self._host, str(place[4][0]))
            except ForbiddenAddressError as error:
                refusal = error
            else:
                allowed.append(place)
        if not allowed:
            assert refusal is not None
            raise refusal
        return allowed

    def _ask(self) -> asyncio.Task[None]:
        """Resolve the name: once, however many connections wait for it, and if none does any more."""
        self._asking = self._loop.create_task(self._resolve(), name=f"webhook resolves {self._host}")
        self._asking.add_done_callback(lambda asking: asking.cancelled() or asking.exception())
        return self._asking

    async def _resolve(self) -> None:
        try:
            found = await self._loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
            self._places = [(family, kind, protocol, name, place) for family, kind, protocol, name, place in found]
            self._until = self._loop.time() + _FRESH
        finally:
            self._asking = None

    def forget(self, place: Place) -> None:
        """Leave an address that does not work out until the name is resolved again, if there are others."""
        if len(self._places) > 1 and place in self._places:
            self._places.remove(place)
