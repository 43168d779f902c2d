"""What this machine has and lacks for the course, and what to do about it."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from packaging.requirements import Requirement

from wsdemo.redis.backend import RedisUnavailable, find_server_binary, redis_backend

__all__ = ["Finding", "examine", "find_browser"]

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "msedge",
    "microsoft-edge",
    "firefox",
)
NOT_ON_PATH = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Firefox.app/Contents/MacOS/firefox",
    "/Applications/Safari.app/Contents/MacOS/Safari",
    r"C:\Program Files\Google\Chrome\Application\chrome.exe",
    r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    r"C:\Program Files\Mozilla Firefox\firefox.exe",
)


@dataclass(frozen=True)
class Finding:
    """One thing looked for. Without what is `needed`, the course does not run."""

    what: str
    ok: bool
    found: str
    advice: str = ""
    needed: bool = True

    def __str__(self) -> str:
        """A line, and where something is to be done about it a second one."""
        mark = "ok" if self.ok else ("MISSING" if self.needed else "without")
        line = f"{mark:8} {self.what:14} {self.found}"
        return line if self.ok or not self.advice else f"{line}\n{'':23} → {self.advice}"


async def examine() -> list[Finding]:
    """Look at Python, the packages, Redis, the ports and the browser."""
    return [_python(), *_packages(), await _ports(), *(await _redis()), _browser()]


def find_browser() -> str | None:
    """The path of a browser on this machine, one that can run headless if there is one."""
    on_path = (shutil.which(name) for name in BROWSERS)
    elsewhere = (path for path in NOT_ON_PATH if os.path.exists(path))
    return next((path for path in (*on_path, *elsewhere) if path), None)


def _python() -> Finding:
    return Finding(
        "Python",
        sys.version_info >= (3, 11),
        f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "install Python 3.11 or newer and make the environment again",
    )


def _packages() -> Iterator[Finding]:
    try:
        requires = importlib.metadata.requires("wsdemo") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("wsdemo", False, "is not installed", "pip install -r requirements.txt")
        return
    needed = [each for each in map(Requirement, requires) if _is_meant(each)]
    lacking = [lack for each in needed if (lack := _lack(each))]
    found = ", ".join(f"{each.name} {_version(each.name)}" for each in needed)
    yield Finding(
        "packages",
        not lacking,
        f"lacking {', '.join(lacking)}" if lacking else found,
        "pip install -r requirements.txt",
    )


def _is_meant(requirement: Requirement) -> bool:
    """Whether this machine is one that the requirement is for."""
    return requirement.marker is None or requirement.marker.evaluate()


def _lack(requirement: Requirement) -> str:
    """What is not there, or not new enough; empty if all is well."""
    version = _version(requirement.name)
    if version is None:
        return requirement.name
    if requirement.specifier.contains(version, prereleases=True):
        return ""
    return f"{requirement.name}{requirement.specifier} (there is {version})"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def _ports() -> Finding:
    """Whether a server on a free loopback port can be reached."""

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    try:
        async with (
            asyncio.timeout(2),
            await asyncio.start_server(hang_up, "127.0.0.1", 0) as server,
        ):
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.read()
            writer.close()
    except (OSError, TimeoutError) as error:
        advice = "let programs listen on 127.0.0.1 in this machine's firewall or sandbox"
        return Finding("ports", False, f"127.0.0.1 cannot be used: {error}", advice)
    return Finding("ports", True, "servers can listen on 127.0.0.1")


async def _redis() -> list[Finding]:
    advice = 'everything but lessons on crashes runs with redis="fake"; to have one, install Redis'
    try:
        binary = str(find_server_binary())
        async with redis_backend("embedded"):
            embedded = Finding("embedded Redis", True, f"{binary} starts", needed=False)
    except RedisUnavailable as error:
        embedded = Finding("embedded Redis", False, str(error), advice, needed=False)
    chosen = os.environ.get("WSDEMO_REDIS")
    if not chosen:
        return [embedded]
    try:
        async with redis_backend():
            answers = Finding("WSDEMO_REDIS", True, "what it names answers")
    except (RedisUnavailable, ValueError) as error:
        answers = Finding("WSDEMO_REDIS", False, str(error), "unset it, or set it to fake")
    return [embedded, answers]


def _browser() -> Finding:
    found = find_browser()
    advice = "JupyterLab needs one on the machine you look at it with; the browser tests, here"
    return Finding("browser", bool(found), found or "none found", advice, needed=False)
