"""Join tokens: what is let in, and that nothing else is."""

from __future__ import annotations

import base64
import logging
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.conftest import dial, game_server, shown
from wsdemo import tokens
from wsdemo.brokers import LocalBroker
from wsdemo.limits import Limits
from wsdemo.protocol import MAX_NAME, MAX_TOKEN
from wsdemo.serve import SECRET_VARIABLE, join_secret
from wsdemo.server import GameServer
from wsdemo.tokens import MIN_SECRET, BadToken, check_secret, read_secret, sign, verify
from wsdemo.trace import Trace

SECRET = b"a secret of enough bytes"
OTHER = b"a secret of other people"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
NOW = 1_800_000_000.0
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=MAX_NAME)
GOOD = sign(SECRET, "g", "P1", 3600)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time as the tokens see it: the one in this list."""
    now = [NOW]
    monkeypatch.setattr(time, "time", lambda: now[0])
    return now


class TestSigning:
    def test_a_token_lets_its_player_into_its_game(self) -> None:
        """Nothing is given back, and nothing raised."""
        verify(SECRET, GOOD, "g", "P1")

    @pytest.mark.parametrize(("game", "player"), [("g", "P2"), ("h", "P1"), ("P1", "g"), ("", "")])
    def test_it_lets_nobody_else_in(self, game: str, player: str) -> None:
        """Neither another player, nor the same one into another game."""
        with pytest.raises(BadToken, match="for another player or game"):
            verify(SECRET, GOOD, game, player)

    def test_it_is_good_until_its_time_and_not_after(self, clock: list[float]) -> None:
        """To the second."""
        token = sign(SECRET, "g", "P1", 60)
        clock[0] += 60
        verify(SECRET, token, "g", "P1")
        clock[0] += 1
        with pytest.raises(BadToken, match="not good any more"):
            verify(SECRET, token, "g", "P1")

    def test_another_secret_is_none(self) -> None:
        """Whoever does not have the server's cannot sign."""
        with pytest.raises(BadToken, match="not signed by this server's secret"):
            verify(OTHER, GOOD, "g", "P1")

    def test_none_at_all_is_said_to_be_missing(self) -> None:
        """A client that knows nothing of tokens learns of them."""
        with pytest.raises(BadToken, match="a token is needed"):
            verify(SECRET, "", "g", "P1")

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 367 * 86_400])
    def test_a_time_that_cannot_be_is_refused(self, seconds: float) -> None:
        """A token that is good for ever is one too many."""
        with pytest.raises(ValueError, match="more than 0 and at most"):
            sign(SECRET, "g", "P1", seconds)

    @given(NAMES, NAMES)
    def test_any_names_fit(self, game: str, player: str) -> None:
        """Of any script, and the token is never longer than a join may carry."""
        token = sign(SECRET, game, player, 3600)
        assert len(token) <= MAX_TOKEN
        verify(SECRET, token, game, player)


class TestForgery:
    @settings(max_examples=300)
    @given(st.data())
    def test_no_character_can_be_changed(self, data: st.DataObject) -> None:
        """Not in the claims, not in the signature, not the dot; nor one added, nor one left out."""
        place = data.draw(st.integers(0, len(GOOD)))
        length = data.draw(st.integers(0, 2))
        put = data.draw(st.text(alphabet=ALPHABET + ".=+/ \né", max_size=2))
        forged = GOOD[:place] + put + GOOD[place + length :]
        assume(forged != GOOD)
        with pytest.raises(BadToken):
            verify(SECRET, forged, "g", "P1")

    @pytest.mark.parametrize("last", list(ALPHABET))
    def test_there_is_one_way_to_write_a_token(self, last: str) -> None:
        """Not even the bits that base64 leaves over can be others."""
        forged = GOOD[:-1] + last
        if forged != GOOD:
            with pytest.raises(BadToken):
                verify(SECRET, forged, "g", "P1")

    @given(st.integers(0, 31), st.integers(0, 7))
    def test_no_bit_of_the_signature_can_be_changed(self, byte: int, bit: int) -> None:
        """As bytes, not as letters."""
        claims, signature = GOOD.split(".")
        raw = bytearray(base64.urlsafe_b64decode(signature + "="))
        raw[byte] ^= 1 << bit
        forged = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        with pytest.raises(BadToken, match="not signed"):
            verify(SECRET, f"{claims}.{forged}", "g", "P1")

    def test_parts_of_two_tokens_make_none(self) -> None:
        """A signature is that of its own claims."""
        other = sign(SECRET, "g", "P2", 3600)
        with pytest.raises(BadToken, match="not signed"):
            verify(SECRET, f"{other.split('.')[0]}.{GOOD.split('.')[1]}", "g", "P2")

    @settings(max_examples=200)
    @given(st.text(max_size=200))
    def test_garbage_is_no_token(self, garbage: str) -> None:
        """Whatever it is, it is refused in words, and with nothing else."""
        with pytest.raises(BadToken):
            verify(SECRET, garbage, "g", "P1")

    @pytest.mark.parametrize(
        "claims",
        [
            b"",
            b"null",
            b"[]",
            b'{"game":"g","player":"P1"}',
            b'{"game":"g","player":"P1","until":"9999999999"}',
            b'{"game":"g","player":"P1","until":9999999999,"admin":true}',
            b'{"game":["g"],"player":"P1","until":9999999999}',
            b"\xff\xfe",
            b"[" * 3000,
        ],
    )
    def test_what_is_signed_must_still_be_claims(self, claims: bytes) -> None:
        """The same secret may sign other things elsewhere."""
        text, signature = (
            base64.urlsafe_b64encode(part).rstrip(b"=").decode()
            for part in (claims, tokens._signature(SECRET, claims))
        )
        with pytest.raises(BadToken, match="this is no token"):
            verify(SECRET, f"{text}.{signature}", "g", "P1")

    @given(st.text(min_size=13, max_size=60))
    def test_an_error_does_not_repeat_the_token(self, garbage: str) -> None:
        """It could be a good one, for somebody else."""
        with pytest.raises(BadToken) as refused:
            verify(SECRET, garbage, "g", "P1")
        assert garbage not in shown(refused.value)


class TestSecrets:
    def test_one_that_can_be_guessed_is_refused(self) -> None:
        """The error says how to make one, and not what it was."""
        short = b"x" * (MIN_SECRET - 1)
        assert check_secret(short + b"x") == short + b"x"
        with pytest.raises(ValueError, match=r"at least 16.*token_urlsafe") as refused:
            check_secret(short)
        assert short.decode() not in shown(refused.value)
        with pytest.raises(ValueError, match="can be guessed"):
            sign(short, "g", "P1", 60)
        with pytest.raises(ValueError, match="can be guessed"):
            GameServer("A", LocalBroker(), join_secret=short)

    def test_it_may_be_in_a_file(self, tmp_path: Path) -> None:
        """As an editor or `echo` leaves it, with a line end."""
        file = tmp_path / "secret"
        file.write_bytes(b" " + SECRET + b"\r\n")
        assert read_secret(file) == join_secret(file) == SECRET
        file.write_bytes(b"\n" * 40)
        with pytest.raises(ValueError, match="a secret of 0 bytes"):
            read_secret(file)
        with pytest.raises(FileNotFoundError):
            join_secret(tmp_path / "nowhere")

    def test_or_in_the_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The file that is named goes first; in neither place is no secret, not a wrong one."""
        monkeypatch.delenv(SECRET_VARIABLE, raising=False)
        assert join_secret() == b""
        monkeypatch.setenv(SECRET_VARIABLE, f" {OTHER.decode()}\n")
        assert join_secret() == OTHER
        file = tmp_path / "secret"
        file.write_bytes(SECRET)
        assert join_secret(file) == SECRET
        monkeypatch.setenv(SECRET_VARIABLE, "short")
        with pytest.raises(ValueError, match="can be guessed"):
            join_secret()
        monkeypatch.setenv(SECRET_VARIABLE, "  ")
        assert join_secret() == b""


class TestAServerWithASecret:
    async def test_lets_in_who_has_a_token_and_counts_who_has_none(self) -> None:
        """Each is told why, may try again, and nothing of it reaches those who play."""
        async with (
            game_server(join_secret=SECRET) as server,
            dial(server.url) as p1,
            dial(server.url) as p2,
        ):
            welcome = await p1.ask("join", game="g", player="P1", token=GOOD)
            assert welcome["type"] == "welcome"
            for token, why in (
                ("", "a token is needed"),
                (GOOD, "for another player"),
                (sign(SECRET, "h", "P2", 60), "for another player or game"),
                (sign(OTHER, "g", "P2", 60), "not signed"),
            ):
                error = await p2.ask("join", game="g", player="P2", token=token)
                assert (error["type"], error["code"]) == ("error", "bad-token")
                assert why in error["message"]
            token = sign(SECRET, "g", "P2", 60)
            assert (await p2.ask("join", game="g", player="P2", token=token))["type"] == ("welcome")
            await p1.silence()
            assert (server.counts.tokens_refused, server.counts.joins) == (4, 2)

    async def test_does_not_let_them_be_tried_for_ever(self) -> None:
        """A token that is refused is a bad message: after some, the connection ends."""
        limits = Limits(max_bad_messages=3)
        async with (
            game_server(join_secret=SECRET, limits=limits) as server,
            dial(server.url) as client,
        ):
            for _ in range(3):
                error = await client.ask("join", game="g", player="P1", token="x.y")
                assert error["code"] == "bad-token"
            assert await client.closed() == (1008, "at most 3 bad messages (max_bad_messages)")

    async def test_says_first_that_the_token_is_bad(self) -> None:
        """Who may not join does not learn who is in the game."""
        async with game_server(join_secret=SECRET) as server, dial(server.url) as p1:
            await p1.ask("join", game="g", player="P1", token=GOOD)
            async with dial(server.url) as stranger:
                error = await stranger.ask("join", game="g", player="P1")
                assert error["code"] == "bad-token"

    @pytest.mark.parametrize("is_good", [True, False])
    async def test_never_writes_a_token_down(
        self, is_good: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not in the trace, not in an error, not in a log, however much that is to tell."""
        token = GOOD if is_good else sign(OTHER, "g", "P1", 3600)
        trace = Trace()
        caplog.set_level(logging.DEBUG)
        async with (
            game_server(join_secret=SECRET, trace=trace) as server,
            dial(server.url, logger=logging.getLogger("nobody")) as client,
        ):
            answer = await client.ask("join", game="g", player="P1", token=token)
            await client.say("send", id="1", body="x")
            await client.hear()
        assert caplog.records
        logged = [record.getMessage() for record in caplog.records if record.name != "nobody"]
        for signature in (token, token.split(".")[1]):
            assert signature not in f"{answer}{list(trace)}{logged}"
            assert SECRET.decode() not in f"{answer}{list(trace)}{logged}{server!r}"

    async def test_a_token_that_nobody_asks_for_is_taken(self) -> None:
        """A client need not know whether the server wants one."""
        async with game_server() as server, dial(server.url) as client:
            assert (await client.ask("join", game="g", player="P1", token="x"))["type"] == (
                "welcome"
            )

    async def test_a_token_too_long_is_a_bad_message(self) -> None:
        """It is not even looked at."""
        async with game_server(join_secret=SECRET) as server, dial(server.url) as client:
            error = await client.ask("join", game="g", player="P1", token="x" * (MAX_TOKEN + 1))
            assert error["code"] == "bad-message"
