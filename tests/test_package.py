"""The installed package: its names, and its peace with others that are installed beside it."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import bullmq_proxy.gateway
from tests.support.node import INSTALL_TIMEOUT

ROOT = Path(__file__).parents[1]


def test_the_list_of_packages_is_that_of_the_tree() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        path.parent.relative_to(ROOT) for top in ("gateway", "supervisor") for path in (ROOT / top).rglob("*.py")
    }
    assert sorted(listed) == sorted("bullmq_proxy." + ".".join(folder.parts) for folder in folders)


def test_the_lock_has_a_fitting_version_and_hashes_of_each_dependency() -> None:
    text = (ROOT / "requirements.lock").read_text()
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;]+).*\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE))
    for wanted in map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]):
        assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), wanted


def test_what_the_package_exports_is_there() -> None:
    assert {name: getattr(bullmq_proxy.gateway, name) for name in bullmq_proxy.gateway.__all__}.keys() == {
        "GatewayError",
        "Proxy",
        "__version__",
        "start_proxy",
    }
    with pytest.raises(AttributeError, match="nothing"):
        bullmq_proxy.gateway.nothing  # noqa: B018


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.timeout(INSTALL_TIMEOUT)
def test_a_wheel_lives_beside_supervisord_and_beside_a_program_with_a_folder_named_gateway(tmp_path: Path) -> None:
    build = "import sys, setuptools.build_meta as backend; backend.build_wheel(sys.argv[1])"  # as pip does
    run(sys.executable, "-c", build, tmp_path, cwd=ROOT)
    [wheel] = tmp_path.glob("bullmq_proxy-*.whl")
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path)
    bin = tmp_path / "env" / "bin"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    run(*pip, "--python", bin / "python", "install", "--no-compile", "--no-deps", wheel, "supervisor", cwd=tmp_path)
    # The dependencies are those of this environment.
    [packages] = (tmp_path / "env").glob("lib/*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (tmp_path / "gateway").mkdir()
    (tmp_path / "gateway" / "__init__.py").write_text("mine = True\n")

    assert run(bin / "supervisord", "--version", cwd=tmp_path)[0].isdigit()
    assert bullmq_proxy.gateway.__version__ in run(bin / "bullmq-proxy", "--version", cwd=tmp_path)
    program = (
        "import gateway, supervisor.supervisord, bullmq_proxy.gateway as ours\n"
        "print(gateway.mine, ours.start_proxy)\n"
        "print(ours.__file__)\n"
    )
    seen, files = run(bin / "python", "-c", program, cwd=tmp_path).splitlines()
    assert seen.startswith("True <function start_proxy")
    assert Path(files).is_relative_to(packages)
    ours, installed = ROOT / "gateway" / "pages", Path(files).parent / "pages"
    assert {path.relative_to(installed) for path in installed.rglob("*.*")} == {
        path.relative_to(ours) for path in ours.rglob("*.*")
    }
