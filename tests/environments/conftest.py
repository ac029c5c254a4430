"""How these tests write an environment's file."""

from collections.abc import Callable
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "environments" / "example.toml"

WriteEnvironment = Callable[..., Path]


@pytest.fixture
def write_environment(tmp_path: Path) -> WriteEnvironment:
    """Writes example.toml with passages replaced: pairs of (what stands there, what shall)."""

    def write(*replacements: tuple[str, str], name: str = "prod.toml") -> Path:
        text = EXAMPLE.read_text(encoding="utf-8")
        for old, new in replacements:
            assert text.count(old) == 1, f"example.toml does not have this once: {old}"
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write
