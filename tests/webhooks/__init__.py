"""Webhook workers, against real endpoints."""
