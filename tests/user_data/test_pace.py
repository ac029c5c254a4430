"""`pace/postern-pace`: decisions, count and socket; in tests/lab/test_pace.py sendmail asks it."""

import asyncio
import json
import socket
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import user_data
from stacks.environment import WarmUp
from tests.user_data.program import program as load

PROVIDERS = Path(user_data.__file__).parent / "pace/providers.toml"
FIRST_DAY = date(2026, 12, 1)


@pytest.fixture(scope="module")
def program() -> ModuleType:
    module: ModuleType = load("pace/postern-pace")
    return module


class Host:
    """A host's pace, with a calendar and a clock of its own."""

    def __init__(self, program: ModuleType, directory: Path, **changes: Any) -> None:
        self.day = FIRST_DAY
        self.now = 1000.0
        self.program = program
        provider = {
            "name": "big",
            "domains": ("big.example", "large.example"),
            "connections": 2,
            "messages_per_connection": 3,
            "messages_per_minute": 60,
        }
        settings = {
            "providers": [program.Provider(**provider | changes.pop("provider", {}))],
            "plan": None,
            "postmaster": "Postmaster@example.net",
            "ledger": program.Ledger(directory),
            "today": lambda: self.day,
        }
        if "messages" in changes:
            settings["plan"] = program.Plan(start=FIRST_DAY, messages=changes.pop("messages"))
        self.pace = program.Pace(**settings | changes)
        self.client = self.process()

    def process(self) -> Any:
        """One of sendmail's that connects."""
        client = self.program.Client()
        self.pace.clients.add(client)
        return client

    def ask(self, job: str, to: str = "a@b.example", kind: str = "mail", **options: Any) -> str:
        client = options.get("client", self.client)
        return self.pace.ask(client, f"{job}:{kind}:{to}", self.now) or "go"

    def later(self, seconds: float = 2) -> list[tuple[str, ...]]:
        """The queue runs that are due then."""
        self.now += seconds
        runs: list[tuple[str, ...]] = self.pace.due(self.now)
        return runs


NewHost = Callable[..., Host]


@pytest.fixture
def host(program: ModuleType, tmp_path: Path) -> NewHost:
    """Makes a host; each has the same volume."""
    return lambda **changes: Host(program, tmp_path, **changes)


def test_without_a_plan_nothing_is_counted_or_limited_but_the_named_providers(
    host: NewHost, tmp_path: Path
) -> None:
    one = host()
    assert {one.ask(f"J{n}") for n in range(1000)} == {"go"}
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_two_holds_the_third_until_tomorrow(host: NewHost) -> None:
    one = host(messages=(2, 3))
    assert [one.ask(f"J{n}") for n in range(3)] == ["go", "go", "warm-up"]
    assert one.later() == []
    one.day = date(2026, 12, 2)
    assert one.later() == [("J2",)]
    assert one.ask("J2") == "go"
    assert one.pace.state()["warm_up"]["sent"] == 1


def test_after_the_last_day_nothing_is_held_and_before_the_first_it_is_as_on_the_first(
    host: NewHost,
) -> None:
    one = host(messages=(1, 2))
    one.day = date(2026, 11, 1)
    assert [one.ask("J0"), one.ask("J1")] == ["go", "warm-up"]
    one.day = date(2026, 12, 3)
    assert one.later() == [("J1",)]
    assert {one.ask(f"K{n}") for n in range(100)} == {"go"}


def test_what_was_counted_is_counted_after_a_restart_and_once_a_day(host: NewHost) -> None:
    assert host(messages=(2,)).ask("J0") == "go"
    again = host(messages=(2,))
    assert again.pace.state()["warm_up"]["sent"] == 1
    # The receiver deferred it, and it is tried again.
    assert again.ask("J0") == "go"
    # Each recipient counts.
    assert [again.ask("J0", "c@b.example"), again.ask("J1")] == ["go", "warm-up"]
    # One that was counted goes, though nothing more is allowed.
    assert again.ask("J0") == "go"


def test_a_damaged_count_is_a_count_all_the_same(host: NewHost, tmp_path: Path) -> None:
    (tmp_path / "2026-12-01.sent").write_bytes(b"J0 00\n\xff\xfe\0\nJ1")
    one = host(messages=(4,))
    assert [one.ask("J5"), one.ask("J6")] == ["go", "warm-up"]


def test_what_cannot_be_counted_is_not_let_go(host: NewHost, tmp_path: Path) -> None:
    (tmp_path / "2026-12-01.sent").mkdir()
    with pytest.raises(OSError, match="directory"):
        host(messages=(4,)).ask("J0")


def test_old_days_are_removed(host: NewHost, tmp_path: Path) -> None:
    for day in range(10, 25):
        (tmp_path / f"2026-11-{day}.sent").touch()
    host(messages=(4,)).ask("J0")
    assert len(list(tmp_path.glob("*.sent"))) == 7


def test_bounces_and_the_postmasters_mail_are_counted_and_never_held(host: NewHost) -> None:
    one = host(messages=(1,))
    assert [one.ask("J0"), one.ask("J1")] == ["go", "warm-up"]
    assert one.ask("J2", kind="bounce") == "go"
    assert one.ask("J3", "<POSTMASTER@example.net>") == "go"
    assert one.pace.state()["warm_up"]["sent"] == 3


def test_who_is_new_waits_behind_who_waited(host: NewHost) -> None:
    one = host(messages=(1, 2, 9))
    assert [one.ask(f"J{n}") for n in range(4)] == ["go", "warm-up", "warm-up", "warm-up"]
    one.day = date(2026, 12, 2)
    assert one.ask("K0") == "warm-up"
    assert one.later() == [("J1", "J2")]
    assert [one.ask("J1"), one.ask("J2"), one.ask("J3")] == ["go", "go", "warm-up"]
    one.day = date(2026, 12, 3)
    assert one.later() == [("J3", "K0")]


def test_a_burst_leaves_at_the_providers_rate_in_order(host: NewHost) -> None:
    one = host(provider={"connections": 1000, "messages_per_connection": 10})
    sent = [n for n in range(100) if one.ask(f"J{n:02}", "a@big.example") == "go"]
    assert sent == list(range(10))  # ten seconds' worth
    # What is new does not take the place of who waits.
    one.now += 5
    assert one.ask("N0", "a@big.example") == "rate"
    one.now -= 5
    for _ in range(60):
        for run in one.later(1):
            asked = [one.ask(job, "a@big.example") for job in run]
            assert set(asked) == {"go"}
            sent += [int(job[1:]) for job in run]
            one.pace.ran(run, one.now)
    assert sent == list(range(10 + 60))
    # Others are not touched, and a domain more of the same provider is.
    assert one.ask("K0", "a@other.example") == "go"
    assert one.ask("K1", "a@LARGE.example.") == "rate"


def test_connections_are_counted_by_process(host: NewHost) -> None:
    one = host(provider={"messages_per_minute": 6000})
    first, second, third = one.process(), one.process(), one.process()
    to = "a@big.example"
    assert one.ask("J0", to, client=first) == "go"
    assert one.ask("J1", to, client=second) == "go"
    assert one.ask("J2", to, client=third) == "connections"
    assert one.later() == []
    # Its next message takes the connection that it has.
    assert one.ask("J3", to, client=first) == "go"
    # It goes on to somebody else, and the connection may be kept meanwhile.
    assert one.ask("J4", client=first) == "go"
    assert one.later(200) == []
    assert one.later(200) == [("J2",)]
    one.pace.clients.discard(second)
    assert one.ask("J2", to, client=third) == "go"


def test_a_run_has_a_connections_messages_and_is_started_once(host: NewHost) -> None:
    one = host(provider={"messages_per_minute": 6000, "connections": 1})
    to = "a@big.example"
    assert one.ask("J", to) == "go"
    other = one.process()
    for n in range(5):
        assert one.ask(f"J{n}", to, client=other) == "connections"
    one.pace.clients.discard(one.client)
    assert one.later(0.5) == []  # sendmail is still at them
    assert one.later() == [("J0", "J1", "J2")]
    assert one.later() == [("J3", "J4")]
    assert one.later() == []
    # J0 asked and waits on; J1 and J2 were deleted meanwhile.
    since = one.now
    one.now += 1
    blocking = one.process()
    assert one.ask("J3", to, client=blocking) == "go"
    assert one.ask("J0", to, client=other) == "connections"
    one.pace.ran(("J0", "J1", "J2"), since)
    assert [waiting.job for waiting in one.pace.waiting.values()] == ["J0", "J4"]


def test_the_state_tells_where_the_plan_stands_and_is_taken_up_again(host: NewHost) -> None:
    one = host(messages=(2, 3, 4))
    for n in range(8):
        one.ask(f"J{n}")
    state = json.loads(json.dumps(one.pace.state()))
    assert state["warm_up"] == {
        "day": 1,
        "days": 3,
        "allowance": 2,
        "sent": 2,
        "backlog_days": 2,  # 3 tomorrow, 3 of the 4 on the day after
    }
    again = host(messages=(9,))
    again.pace.restore(state, again.now)
    assert again.pace.state()["waiting"] == state["waiting"]
    assert again.later() == [("J2", "J3", "J4", "J5", "J6", "J7")]


def test_a_plan_is_read_as_the_stacks_write_it(program: ModuleType) -> None:
    written = WarmUp.model_validate(
        {"start": FIRST_DAY, "first_day": 200, "growth": 1.5, "until": 500}
    ).as_host_setting
    assert written == "2026-12-01:200,300,450"
    assert program.Plan.parse(written) == program.Plan(start=FIRST_DAY, messages=(200, 300, 450))
    assert program.read_plan({"WARM_UP": written}) is not None
    assert program.read_plan({}) is None


def test_the_file_of_providers_is_as_it_has_to_be(program: ModuleType) -> None:
    providers = {one.name: one for one in program.read_providers(PROVIDERS)}
    assert {"gmail", "outlook", "yahoo", "naver", "kakao"} <= providers.keys()
    assert providers["yahoo"].messages_per_connection == 20  # as Yahoo publishes it
    assert "hanmail.net" in providers["kakao"].domains


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("connections = 0", "a.connections: write a whole number from 1"),
        ("connections = true", "a.connections: write a whole number from 1"),
        ("connection = 1", "write connections, domains, messages_per_connection"),
        ('connections = 1\ndomains = ["B.example"]', "'B.example' is no domain in lower case"),
    ],
)
def test_a_wrong_file_of_providers_says_what_to_write(
    program: ModuleType, tmp_path: Path, change: str, words: str
) -> None:
    file = tmp_path / "providers.toml"
    domains = "" if "domains" in change else 'domains = ["b.example"]\n'
    file.write_text(
        f"[a]\n{change}\n{domains}messages_per_connection = 1\nmessages_per_minute = 1\n"
    )
    with pytest.raises(ValueError, match=words):
        program.read_providers(file)


def test_a_domain_has_one_provider(program: ModuleType, tmp_path: Path) -> None:
    rest = "connections = 1\nmessages_per_connection = 1\nmessages_per_minute = 1\n"
    file = tmp_path / "providers.toml"
    file.write_text("".join(f'[{name}]\ndomains = ["x.example"]\n{rest}' for name in "ab"))
    with pytest.raises(ValueError, match=r"b.domains: x.example is a's"):
        program.read_providers(file)


@pytest.fixture
def service(
    program: ModuleType, host: NewHost, tmp_path: Path, unused_name: Path
) -> Callable[..., Any]:
    """Runs `talk` beside the service, and gives what the talk gave and what was started."""

    def run(talk: Callable[[], Any], **changes: Any) -> tuple[Any, list[str]]:
        runs = tmp_path / "runs"
        program_of_sendmails = tmp_path / "sendmail"
        program_of_sendmails.write_text(f'#!/bin/sh\necho "$@" >>{runs}\n')
        program_of_sendmails.chmod(0o755)
        of_it = program.Service(
            host(**changes).pace,
            state=tmp_path,
            queue=tmp_path,
            sendmail=(str(program_of_sendmails),),
        )
        of_it.restore()

        async def both() -> Any:
            serving = asyncio.create_task(of_it.serve(unused_name))
            while not unused_name.exists():
                await asyncio.sleep(0.01)
            try:
                return await asyncio.to_thread(talk)
            finally:
                serving.cancel()

        return asyncio.run(both()), runs.read_text().splitlines() if runs.exists() else []

    return run


@pytest.fixture
def unused_name(tmp_path: Path) -> Path:
    return tmp_path / "socket"


def asked(name: Path, *requests: bytes) -> list[bytes]:
    """The answers over one connection; b"" when it is closed."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(name))
        answers = []
        for request in requests:
            connection.sendall(request)
            answers.append(connection.recv(1000))
        return answers


def test_it_speaks_sendmails_protocol(service: Callable[..., Any], unused_name: Path) -> None:
    answers, _ = service(
        lambda: asked(
            unused_name,
            b"26:pace J0:mail:<a@b.example>,",
            b"26:pace J1:mail:<a@b.example>,",
            b"9:pace what,",
        ),
        messages=(1,),
    )
    assert answers == [b"9:NOTFOUND ,", b"10:OK warm-up,", b"16:PERM no such key,"]


@pytest.mark.parametrize("request_", [b"hello", b"99999999:", b"3:abcd", b":"])
def test_what_is_no_request_ends_the_connection_and_nothing_else(
    service: Callable[..., Any], unused_name: Path, request_: bytes
) -> None:
    def talk() -> list[list[bytes]]:
        return [asked(unused_name, request_), asked(unused_name, b"26:pace J0:mail:<a@b.example>,")]

    assert service(talk)[0] == [[b""], [b"9:NOTFOUND ,"]]


def test_a_damaged_state_is_begun_anew(
    service: Callable[..., Any], unused_name: Path, tmp_path: Path
) -> None:
    (tmp_path / "state.json").write_text('{"waiting": [["J0"')
    answers, _ = service(lambda: asked(unused_name, b"26:pace J0:mail:<a@b.example>,"))
    assert answers == [b"9:NOTFOUND ,"]
    assert json.loads((tmp_path / "state.json").read_text()) == {"warm_up": None, "waiting": []}


def test_a_restart_with_a_raised_plan_has_what_waited_tried_at_once(
    service: Callable[..., Any], tmp_path: Path
) -> None:
    """In both queues, one run each; what is in neither is not asked for."""
    jobs = {"J7": "mqueue", "J8": "mqueue-deferred"}
    for job, directory in jobs.items():
        (tmp_path / directory).mkdir()
        (tmp_path / directory / f"qf{job}").touch()
    state = {"waiting": [[f"{job} 0123456789abcdef", None, "warm-up"] for job in (*jobs, "J9")]}
    (tmp_path / "state.json").write_text(json.dumps(state))

    def talk() -> None:
        deadline = time.monotonic() + 10
        runs = tmp_path / "runs"
        while time.monotonic() < deadline and not (runs.exists() and "J8" in runs.read_text()):
            time.sleep(0.05)

    assert service(talk, messages=(5,))[1] == ["-qGmqueue -qIJ7", "-qGdeferred -qIJ8"]
