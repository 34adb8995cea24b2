"""Handing jobs out, under locks, and taking the answers."""
