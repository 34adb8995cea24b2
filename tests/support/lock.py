"""Print the versions of the tools for tests in this environment, with all that they need and the gateway does not."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def closure(names: Iterable[str], extra: str = "") -> dict[str, str]:
    """Return the versions of packages and of all that they need, where they are installed."""
    found: dict[str, str] = {}
    waiting = [(name, extra) for name in names]
    while waiting:
        name, extra = waiting.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another platform
            continue
        if canonicalize_name(name) in found and not extra:
            continue
        found[canonicalize_name(name)] = package.version
        for text in package.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting.extend((requirement.name, more) for more in requirement.extras or [""])
    return found


_HEAD = """\
# The tools for tests and checks, with all that they need; `make lock` writes them again.
# What the gateway itself needs is not among them: it is tested with what its users get."""

if __name__ == "__main__":
    print(_HEAD)
    needed = closure(["bullmq-proxy"])
    for name, version in sorted(closure(["bullmq-proxy"], "dev").items()):
        if name not in needed:
            print(f"{name}=={version}")
