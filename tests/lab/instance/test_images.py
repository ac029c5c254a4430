"""Where Debian is fetched from, and that a cached tree is always a whole one."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import images
from lab.images import DebianArchives, ImageError, debian_archives, parse_index_targets

ARCHIVES = DebianArchives(
    main="http://debian.example.edu/debian", security="http://debian.example.edu/debian-security"
)

ONE_LINE = """\
deb http://debian.example.edu/debian/ bookworm main contrib
deb http://debian.example.edu/debian bookworm-updates main
deb [arch=amd64] http://security.example.edu bookworm-security main
deb http://vendor.example.com/debian bookworm main
"""
DEB822 = """\
Types: deb
URIs: http://debian.example.edu/debian/
Suites: bookworm bookworm-updates
Components: main contrib

Types: deb
URIs: http://security.example.edu
Suites: bookworm-security
Components: main
Architectures: amd64

Types: deb
URIs: http://vendor.example.com/debian
Suites: bookworm
Components: main
"""


def fetched_list(lists: Path, repository: str, codename: str, origin: str) -> None:
    """Files as `apt-get update` leaves them."""
    prefix = lists / f"{repository.replace('/', '_')}_dists_{codename}_"
    Path(f"{prefix}InRelease").write_text(
        f"Origin: {origin}\nSuite: {codename}\nCodename: {codename}\n"
        "Date: Sat, 11 Jul 2026 10:16:37 UTC\nArchitectures: amd64 arm64\nComponents: main\n"
        f"SHA256:\n {'0' * 64} 0 main/binary-amd64/Packages\n"
    )
    Path(f"{prefix}main_binary-amd64_Packages").write_text("")


@pytest.mark.lab  # it asks apt
@pytest.mark.parametrize(
    ("name", "sources"), [("debian.list", ONE_LINE), ("debian.sources", DEB822)]
)
def test_debian_is_fetched_from_where_apt_fetches_it_in_either_source_format(
    tmp_path: Path, name: str, sources: str
) -> None:
    lists, parts = tmp_path / "lists", tmp_path / "sources.list.d"
    lists.mkdir()
    parts.mkdir()
    (parts / name).write_text(sources)
    for codename in ("bookworm", "bookworm-updates"):
        fetched_list(lists, "debian.example.edu/debian", codename, "Debian")
    fetched_list(lists, "security.example.edu", "bookworm-security", "Debian")
    fetched_list(lists, "vendor.example.com/debian", "bookworm", "A vendor")

    found = debian_archives(
        (
            "APT::Architecture=amd64",
            f"Dir::State::lists={lists}",
            f"Dir::Etc::sourceparts={parts}",
            "Dir::Etc::sourcelist=/dev/null",
            "Dir::Cache::pkgcache=",
            "Dir::Cache::srcpkgcache=",
        )
    )

    assert found == DebianArchives(
        main="http://debian.example.edu/debian", security="http://security.example.edu"
    )


def test_without_fetched_lists_the_remedy_is_told() -> None:
    with pytest.raises(ImageError, match="apt-get update"):
        parse_index_targets("")


def test_a_machine_without_security_updates_is_refused() -> None:
    with pytest.raises(ImageError, match="no Debian security archive"):
        parse_index_targets("Debian main bookworm http://debian.example.edu/debian/\n")


def test_the_mirror_list_of_a_cloud_image_is_followed(tmp_path: Path) -> None:
    mirrors = tmp_path / "debian.list"
    mirrors.write_text("# nearest first\nhttps://near.example.edu/debian\thttps priority:1\n")
    security = tmp_path / "security.list"
    security.write_text("https://near.example.edu/debian-security\n")

    found = parse_index_targets(
        f"Debian main trixie mirror+file:{mirrors}\n"
        f"Debian main trixie-security mirror+file://{security}\n"
    )

    assert found == DebianArchives(
        main="https://near.example.edu/debian", security="https://near.example.edu/debian-security"
    )


class FakeMmdebstrap:
    """Stands for mmdebstrap: writes a file into the target, or fails with the target half full."""

    def __init__(self) -> None:
        self.targets: list[Path] = []
        self.error: BaseException | None = None
        self.meeting: threading.Barrier | None = None

    def __call__(self, command: list[str], progress: Callable[[str], None]) -> None:
        target = Path(command[command.index(images.SUITE) + 1])
        self.targets.append(target)
        (target / "etc").mkdir()
        if self.meeting is not None:
            with contextlib.suppress(threading.BrokenBarrierError):
                self.meeting.wait()
        if self.error is not None:
            raise self.error
        progress("built")


@pytest.fixture
def mmdebstrap(monkeypatch: pytest.MonkeyPatch) -> FakeMmdebstrap:
    fake = FakeMmdebstrap()
    monkeypatch.setattr(images, "debian_archives", lambda: ARCHIVES)
    monkeypatch.setattr(images, "_run_reporting", fake)
    return fake


def build(
    cache: Path, packages: tuple[str, ...] = ("nsd",), customize: tuple[str, ...] = ()
) -> Path:
    return images.root_filesystem(
        cache=cache,
        name="test",
        packages=packages,
        customize=customize,
        progress=lambda _: None,
    )


def test_a_tree_is_built_once(tmp_path: Path, mmdebstrap: FakeMmdebstrap) -> None:
    assert build(tmp_path) == build(tmp_path)
    assert len(mmdebstrap.targets) == 1


def test_a_changed_recipe_makes_another_tree(tmp_path: Path, mmdebstrap: FakeMmdebstrap) -> None:
    trees = {
        build(tmp_path),
        build(tmp_path, packages=("nsd", "postfix")),
        build(tmp_path, customize=('touch "$1/etc/changed"',)),
    }
    assert len(trees) == len(mmdebstrap.targets) == 3


@pytest.mark.parametrize("error", [ImageError("no space"), KeyboardInterrupt()])
def test_an_interrupted_build_leaves_nothing_half(
    tmp_path: Path, mmdebstrap: FakeMmdebstrap, error: BaseException
) -> None:
    mmdebstrap.error = error
    with pytest.raises(type(error)):
        build(tmp_path)
    assert [path for path in (tmp_path / "images").iterdir() if path.is_dir()] == []

    mmdebstrap.error = None
    assert (build(tmp_path) / "etc").is_dir()


def test_what_a_killed_build_left_is_swept_by_the_next(
    tmp_path: Path, mmdebstrap: FakeMmdebstrap
) -> None:
    tree = build(tmp_path)
    leftover = tree.parent / f".{tree.name}.killed"
    tree.rename(leftover)

    assert build(tmp_path).is_dir()
    assert not leftover.exists()
    assert len(mmdebstrap.targets) == 2


def test_two_builders_at_a_time_build_one_tree(tmp_path: Path, mmdebstrap: FakeMmdebstrap) -> None:
    mmdebstrap.meeting = threading.Barrier(2, timeout=0.5)  # where two builds would meet
    builders = [threading.Thread(target=build, args=[tmp_path]) for _ in range(2)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join()
    assert len(mmdebstrap.targets) == 1
