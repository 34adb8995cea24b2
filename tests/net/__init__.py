"""The edge, over real sockets: HTTP, handshakes, frames, limits, and the life of a connection."""
