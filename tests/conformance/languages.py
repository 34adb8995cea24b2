"""The examples for other languages: what each needs on the machine, how it is built, and how it is started."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.service import ROOT

FOLDER = ROOT / "docs" / "clients"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bullmq-proxy"
_BUILD_TIMEOUT = 240  # s


@dataclass(frozen=True)
class Language:
    """An example.

    Attributes:
        source: its file.
        programs: those that have to be there.
        libraries: files that have to be there, as patterns.
        build: the command that makes a program of it, with `SOURCE`, its `FOLDER`, and the folder `OUTPUT`; none for a
            script.
        command: starts it.
        environment: variables of the build.
        speaks_http: it asks for jobs, and has no WebSocket.
    """

    source: str
    programs: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    build: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    speaks_http: bool = False

    @property
    def missing(self) -> str | None:
        """What is not on the machine; None if all of it is."""
        programs = [program for program in self.programs if shutil.which(program) is None]
        return next(iter([*programs, *(path for path in self.libraries if not glob.glob(path))]), None)

    def built(self) -> list[str]:
        """Return the command that starts it, built where need be; what was built is kept while the file is the same."""
        source = FOLDER / self.source
        beside = sorted(FOLDER.glob(f"*{source.suffix}"))
        told = b"".join(path.read_bytes() for path in beside) + " ".join(self.build).encode()
        output = _CACHE / f"client-{self.source}-{hashlib.sha256(told).hexdigest()[:16]}"
        if self.build and not output.exists():
            fresh = output.with_suffix(f".{os.getpid()}")
            fresh.mkdir(parents=True)
            command = [self._placed(word, source, fresh) for word in self.build]
            environment = {**os.environ, **self.environment}
            subprocess.run(command, env=environment, check=True, timeout=_BUILD_TIMEOUT)
            fresh.rename(output)
        return [self._placed(word, source, output) for word in self.command]

    @staticmethod
    def _placed(word: str, source: Path, output: Path) -> str:
        return word.replace("SOURCE", str(source)).replace("FOLDER", str(FOLDER)).replace("OUTPUT", str(output))


_CRATES = "/usr/share/cargo/registry"
_CARGO = (
    "mkdir OUTPUT/src && cp SOURCE OUTPUT/src/main.rs && cp FOLDER/websocket.rs OUTPUT/src/ && cd OUTPUT"
    ' && printf \'[package]\nname = "client"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nserde_json = "1"\n\''
    " > Cargo.toml && cargo build --quiet --offline --config 'source.crates-io.replace-with=\"debian\"'"
    f" --config 'source.debian.directory=\"{_CRATES}\"'"
)
_GSON = "/usr/share/java/gson.jar"
LANGUAGES = {
    "elixir": Language(
        "client.exs",
        ("elixir",),
        ("/usr/lib/erlang/lib/jiffy-*",),
        (),
        ("env", "LC_ALL=C.UTF-8", "elixir", "SOURCE"),
    ),
    "go": Language(
        "client.go",
        ("go",),
        ("/usr/share/gocode/src/github.com/gorilla/websocket",),
        ("go", "build", "-o", "OUTPUT/client", "SOURCE"),
        ("OUTPUT/client",),
        {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode"},
    ),
    "java": Language(
        "Client.java",
        ("java", "javac"),
        (_GSON,),
        ("javac", "-encoding", "UTF-8", "-cp", _GSON, "-d", "OUTPUT", "SOURCE"),
        ("java", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto", "-cp", f"{_GSON}:OUTPUT", "Client"),
    ),
    "php": Language("client.php", ("php",), (), (), ("php", "SOURCE"), speaks_http=True),
    "ruby": Language(
        "client.rb", ("ruby",), ("/usr/lib/ruby/vendor_ruby/websocket/driver.rb",), (), ("ruby", "SOURCE")
    ),
    "rust": Language(
        "client.rs",
        ("cargo", "cc"),
        (f"{_CRATES}/serde_json-*",),
        ("sh", "-c", _CARGO),
        ("OUTPUT/target/debug/client",),
    ),
    "shell": Language("client.sh", ("curl", "jq"), (), (), ("sh", "SOURCE"), speaks_http=True),
}
