"""The ancestor's HTTP routes."""
