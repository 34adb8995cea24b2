"""Jobs in and out of a queue: adding, moving on, reading."""
