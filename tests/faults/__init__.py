"""Pulled plugs: each part is killed under load, and then the jobs are counted."""
