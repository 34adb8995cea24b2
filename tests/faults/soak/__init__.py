"""Everything that can go wrong, at random and for long, with an auditor outside the gateway who counts each job."""
