"""The benchmark works, and the gateway does no more work per operation than is written here."""
