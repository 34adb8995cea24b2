"""The clients, against a real gateway."""
