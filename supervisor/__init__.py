"""The parent process: it holds the port, forks the shards and keeps them alive. It starts no event loop."""
