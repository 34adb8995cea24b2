"""`python -m bullmq_proxy.supervisor` is `bullmq-proxy`."""

from __future__ import annotations

import sys

from bullmq_proxy.supervisor.cli import main

sys.exit(main())
