"""One class per kind of connection. They speak messages, not bytes, and know neither sockets nor Redis commands."""
