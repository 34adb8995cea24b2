"""Node's BullMQ and the gateway on the same Redis: they see the same jobs, say the same things, share the same work."""
