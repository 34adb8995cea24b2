"""The specification, as tests: real Valkey, real sockets, real processes."""
