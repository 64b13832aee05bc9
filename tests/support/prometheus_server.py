"""A real Prometheus that scrapes one page, and its `promtool`: where the machine has them."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.eventually import eventually
from tests.support.postgres import free_port

_CONFIGURATION = """
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: timeout-scheduler
    static_configs: [{{targets: ["127.0.0.1:{target}"]}}]
"""


def promtool(*words: str | Path, given: bytes = b"") -> str:
    """Run promtool; returns what it printed. Fails unless it exits with 0; skips the test where it isn't installed."""
    done = subprocess.run([_program("promtool"), *words], input=given, capture_output=True, check=False)
    printed = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, printed
    return printed


class Prometheus:
    """What a Prometheus answers."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        """Whether it has started."""
        try:
            return bool(self._get("/-/ready"))
        except OSError:
            return False

    def query(self, expression: str) -> list[Any]:
        """The result of an expression, now. Fails where it can't be evaluated."""
        answer = json.loads(self._get(f"/api/v1/query?{urllib.parse.urlencode({'query': expression})}"))
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def rules(self) -> dict[str, str]:
        """The health of each alert."""
        groups = json.loads(self._get("/api/v1/rules"))["data"]["groups"]
        return {rule["name"]: rule["health"] for group in groups for rule in group["rules"]}

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._address + path, timeout=30) as answer:  # noqa: S310 - http
            return bytes(answer.read())


@contextmanager
def scraping(folder: Path, target: int, rules: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes this port every second; gone after the block."""
    program, port = _program("prometheus"), free_port()
    configuration = folder / "prometheus.yml"
    configuration.write_text(_CONFIGURATION.format(rules=rules, target=target), "utf-8")
    words = [
        program,
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log, subprocess.Popen(words, stdout=log, stderr=log) as process:
        try:
            prometheus = Prometheus(port)
            eventually(prometheus.is_ready, 30)
            yield prometheus
        finally:
            process.kill()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return found
