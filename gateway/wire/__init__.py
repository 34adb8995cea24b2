"""What goes over the wire, as pure functions and types: no sockets, no Redis, no asyncio."""
