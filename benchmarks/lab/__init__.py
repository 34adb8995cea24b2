"""The laboratory: processes started and ended, and what the operating system and Redis say about them."""
