"""The events of a queue, and the ends of jobs that somebody waits for."""
