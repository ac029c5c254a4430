"""The sink counts every message once, however its client speaks."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bench.sink import Count, Sink

RUN = "a1b2c3d4"

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def content(number: int, run: str = RUN) -> bytes:
    return (
        f"DKIM-Signature: v=1\r\nMessage-ID: <{number}.{run}@mail.example.com>\r\n\r\nbody\r\n"
    ).encode()


def transaction(number: int, run: str = RUN) -> bytes:
    """A whole message, as a client that pipelines sends it."""
    return b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n" + content(number, run) + b".\r\n"


def with_sink(
    count: Count, talk: Callable[[Sink, Client], Awaitable[None]], *, expected: int = 1
) -> Sink:
    """A sink that a client talked to, and that has replied to everything."""

    async def run() -> Sink:
        sink = Sink(["127.0.0.1"], port=0)
        count.expected = expected
        sink.count = count
        await sink.open()
        client = await asyncio.open_connection("127.0.0.1", sink.ports[0])
        await talk(sink, client)
        client[1].close()
        await sink.close()
        return sink

    return asyncio.run(run())


async def replies(client: Client, lines: int) -> list[bytes]:
    return [(await client[0].readline())[:3] for _ in range(lines)]


def test_each_message_is_counted_once() -> None:
    async def talk(_: Sink, client: Client) -> None:
        client[1].write(b"".join(transaction(number) for number in range(3)))
        assert await replies(client, 13) == [b"220", *[b"250", b"250", b"354", b"250"] * 3]

    report = with_sink(Count(run=RUN), talk, expected=3).count.report()
    assert (report["distinct"], report["doubled"], report["strangers"]) == (3, 0, 0)


def test_a_message_that_comes_twice_is_told() -> None:
    async def talk(_: Sink, client: Client) -> None:
        client[1].write(transaction(0) + transaction(1) + transaction(0))
        await replies(client, 13)

    report = with_sink(Count(run=RUN), talk, expected=2).count.report()
    assert (report["distinct"], report["doubled"]) == (2, 1)


def test_messages_of_another_run_do_not_count() -> None:
    async def talk(_: Sink, client: Client) -> None:
        client[1].write(transaction(0, run="earlier1") + transaction(7))
        await replies(client, 9)

    report = with_sink(Count(run=RUN), talk).count.report()
    assert (report["distinct"], report["strangers"], report["outside"]) == (1, 1, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_message_is_found_wherever_the_network_cuts_it(size: int) -> None:
    async def talk(_: Sink, client: Client) -> None:
        text = transaction(0) + transaction(1)
        for start in range(0, len(text), size):
            client[1].write(text[start : start + size])
            await client[1].drain()
            await asyncio.sleep(0)
        await replies(client, 9)

    assert with_sink(Count(run=RUN), talk, expected=2).count.report()["distinct"] == 2


def test_every_reply_waits_for_the_round_trip() -> None:
    async def talk(_: Sink, client: Client) -> None:
        began = time.monotonic()
        await replies(client, 1)
        greeted = time.monotonic()
        client[1].write(transaction(0))
        assert await replies(client, 4) == [b"250", b"250", b"354", b"250"]
        assert greeted - began > 0.25  # the connection was made some time before
        # One for all that was sent in one go, and the hold.
        assert 0.6 <= time.monotonic() - greeted < 1.5

    with_sink(Count(run=RUN, delay=0.5, hold=0.1), talk)


def test_a_client_that_says_quit_and_closes_its_half_gets_its_answer() -> None:
    """Exim does, and would send a message again that was not answered."""

    async def talk(_: Sink, client: Client) -> None:
        client[1].write(transaction(0) + b"QUIT\r\n")
        client[1].write_eof()
        text = await client[0].read()
        assert [line[:3] for line in text.splitlines()][-2:] == [b"250", b"221"]

    assert with_sink(Count(run=RUN, delay=0.05, hold=0.05), talk).count.report()["distinct"] == 1


def test_no_reply_overtakes_one_that_is_held_longer() -> None:
    async def talk(_: Sink, client: Client) -> None:
        client[1].write(transaction(0))
        await asyncio.sleep(0.08)
        client[1].write(b"QUIT\r\n")
        text = await client[0].read()
        assert [line[:3] for line in text.splitlines()][-2:] == [b"250", b"221"]

    with_sink(Count(run=RUN, delay=0.02, hold=0.2), talk)


def test_a_message_counts_when_it_is_answered_not_before() -> None:
    async def talk(sink: Sink, client: Client) -> None:
        client[1].write(transaction(0))
        await asyncio.sleep(0.15)
        assert sink.count.report()["distinct"] == 0
        await replies(client, 5)
        assert sink.count.report()["distinct"] == 1

    with_sink(Count(run=RUN, delay=0.1, hold=0.2), talk)


def test_a_sample_is_kept_as_it_came(tmp_path: Path) -> None:
    async def talk(_: Sink, client: Client) -> None:
        client[1].write(b"".join(transaction(number) for number in range(5)))
        await replies(client, 21)

    with_sink(Count(run=RUN, sample=tmp_path, sample_every=2), talk, expected=5)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "2", "4"]
    assert (tmp_path / "2").read_bytes() == content(2)


def test_who_waits_is_told_when_all_have_come() -> None:
    async def run() -> None:
        sink = Sink(["127.0.0.1"], port=0)
        begun = await sink.obey({"do": "begin", "run": RUN, "expected": 2})
        assert begun["distinct"] == 0
        waiting = asyncio.create_task(sink.obey({"do": "wait", "seconds": 10}))
        for number in (1, 1, 0):
            await asyncio.sleep(0)
            assert not waiting.done()
            sink.take(content(number))
        report = await waiting
        assert (report["distinct"], report["doubled"]) == (2, 1)

    asyncio.run(run())


def test_closed_it_refuses_connections() -> None:
    async def run() -> None:
        sink = Sink(["127.0.0.1"], port=0)
        await sink.open()
        port = sink.ports[0]
        await sink.obey({"do": "close"})
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(run())
