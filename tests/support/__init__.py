"""What tests of several rooms need: a Valkey server, the service as a process, waiting with a deadline."""
