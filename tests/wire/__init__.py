"""What goes over the wire: no sockets, no event loop."""
