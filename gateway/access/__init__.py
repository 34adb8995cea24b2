"""Keys: the keys file, authentication, rights, and the limits that all shards share."""
