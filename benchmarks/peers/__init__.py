"""The peers: what the gateway is compared with. Each speaks the same task and answers with the same lines."""
