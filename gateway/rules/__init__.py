"""The rules of BullMQ as pure functions and types: options, flows, schedulers, cron patterns, the JSON of jobs."""
