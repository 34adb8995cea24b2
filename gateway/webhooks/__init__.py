"""Webhook workers: jobs are sent to URLs by HTTP requests, and what these answer ends the jobs."""
