"""The sessions over real WebSockets, against a gateway in this process and a real Valkey."""
