"""Redis and BullMQ: the link, the scripts and the leases, against real servers and misbehaving ones."""
