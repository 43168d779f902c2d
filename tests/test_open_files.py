"""How many files a process may have open, where the system does not allow all that are wanted."""

from __future__ import annotations

import pytest

from wsdemo.open_files import OPEN_MAX, allow_open_files

resource = pytest.importorskip("resource", reason="Windows has no such limit")


class Mac:
    """A system that tells of no limit but the one that is in force, and yet has another."""

    def __init__(self, allowed: int, hidden: int) -> None:
        self.allowed = allowed
        self.hidden = hidden

    def getrlimit(self, which: int) -> tuple[int, int]:
        return self.allowed, resource.RLIM_INFINITY

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        if limits[0] > self.hidden:
            raise ValueError("invalid argument")
        self.allowed = limits[0]


@pytest.mark.parametrize(
    ("allowed", "hidden", "wanted", "gets"),
    [
        (256, 24_576, 11_700, 11_700),
        (256, OPEN_MAX, 11_700, OPEN_MAX),
        (256, OPEN_MAX, 300, 300),
        (256, 1000, 11_700, 256),
        (10_500, 11_000, 11_700, 10_500),  # it is not to become less
    ],
)
def test_it_gets_what_the_system_grants_in_the_end(
    monkeypatch: pytest.MonkeyPatch, allowed: int, hidden: int, wanted: int, gets: int
) -> None:
    """All of it, or what every system of the kind grants, or what it had."""
    mac = Mac(allowed, hidden)
    monkeypatch.setattr(resource, "getrlimit", mac.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", mac.setrlimit)
    assert allow_open_files(wanted) == mac.allowed == gets
