"""What the differential tests do: the same steps, in the same order, on a queue of Node's and on one of ours."""

from typing import Final

from tests.interop.scenarios import adding, basics, consuming, families, flows, jobs, managing, reading, schedulers
from tests.interop.scenarios.steps import Scenario

SCENARIOS: Final[tuple[Scenario, ...]] = (
    *adding.SCENARIOS,
    *basics.SCENARIOS,
    *consuming.SCENARIOS,
    *families.SCENARIOS,
    *flows.SCENARIOS,
    *jobs.SCENARIOS,
    *managing.SCENARIOS,
    *reading.SCENARIOS,
    *schedulers.SCENARIOS,
)
