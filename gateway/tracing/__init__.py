"""Traces of jobs by OpenTelemetry. Nothing here is imported unless `tracing` is set; `extra` alone can be."""
