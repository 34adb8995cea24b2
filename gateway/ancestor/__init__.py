"""The HTTP routes of taskforcesh/bullmq-proxy, from which this program takes its name: its clients need no change."""
