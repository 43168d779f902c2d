"""Join tokens: by them a server knows that who decides has let a player into a game.

Whoever has the secret, such as a web site where players log in, signs the game, the player and the
moment until which the token is good. The server has the same secret, and asks nobody. A token is
as good in a thief's hands: it belongs into encrypted connections only, and should not be good for
long. It is looked at when a player joins, and not again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from pathlib import Path

import msgspec

__all__ = ["MIN_SECRET", "BadToken", "check_secret", "read_secret", "sign", "verify"]

MIN_SECRET = 16  # bytes
LONGEST = 366 * 86_400  # seconds that a token is good for, at most


class BadToken(ValueError):
    """The token does not let this player in; the text says why."""


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    game: str
    player: str
    until: int  # seconds since 1970, UTC


def sign(secret: bytes, game: str, player: str, seconds: float) -> str:
    """A token for a player of a game, good for so many seconds. Raises `ValueError`."""
    if not 0 < seconds <= LONGEST:
        raise ValueError(f"a token is good for more than 0 and at most {LONGEST} seconds")
    claims = msgspec.json.encode(_Claims(game, player, int(time.time() + seconds)))
    return f"{_text(claims)}.{_text(_signature(check_secret(secret), claims))}"


def verify(secret: bytes, token: str, game: str, player: str) -> None:
    """Look whether a token is for this player of this game, now. Raises `BadToken`."""
    if not token:
        raise BadToken("a token is needed to join here")
    try:
        claims, signature = map(_bytes, token.split("."))
    except ValueError:
        raise BadToken("this is no token") from None
    if not hmac.compare_digest(_signature(secret, claims), signature):
        raise BadToken("the token is not signed by this server's secret")
    try:
        let_in = msgspec.json.decode(claims, type=_Claims)
    except msgspec.DecodeError:
        raise BadToken("this is no token") from None
    if (let_in.game, let_in.player) != (game, player):
        raise BadToken("the token is for another player or game")
    if let_in.until < time.time():
        raise BadToken("the token is not good any more")


def check_secret(secret: bytes) -> bytes:
    """The secret itself. Raises `ValueError` if it could be guessed."""
    if len(secret) < MIN_SECRET:
        raise ValueError(
            f"a secret of {len(secret)} bytes can be guessed; use at least {MIN_SECRET}, such as "
            'those of: python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    return secret


def read_secret(path: Path) -> bytes:
    """The secret in a file, without the spaces and line ends around it.

    Raises `OSError`, and `ValueError` if it could be guessed.
    """
    return check_secret(path.read_bytes().strip())


def _signature(secret: bytes, claims: bytes) -> bytes:
    return hmac.digest(secret, claims, hashlib.sha256)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    """What has been written like this, and would be again. Raises `ValueError`."""
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _text(data) != text:
        raise ValueError("this is no base64, or another way to write it")
    return data
