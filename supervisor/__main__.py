"""The command `bullmq-proxy`, which is `python -m bullmq_proxy.supervisor`, too."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Run the command line. Nothing is collected while it is imported, which would take a twentieth of that time."""
    gc.disable()
    from bullmq_proxy.supervisor import cli  # noqa: PLC0415

    gc.freeze()
    gc.enable()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
