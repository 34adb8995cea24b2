"""The listener, WebSocket connections, authentication and plain HTTP: the only room that knows websockets."""
