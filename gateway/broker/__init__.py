"""Redis and BullMQ: the pipelined link, the scripts, the functions of a queue, leases, and the event stream."""
