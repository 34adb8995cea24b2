"""The load generator: a process that speaks to a proxy over raw sockets, and what all clients share."""
