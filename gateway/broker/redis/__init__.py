"""Redis itself: address, socket, pipelined link, scripts, and commands that are packed once."""
