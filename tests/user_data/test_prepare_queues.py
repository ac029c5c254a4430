"""`queue_volume/prepare-queues`: what a killed sendmail leaves behind does no harm."""

import subprocess
from pathlib import Path

import user_data

SCRIPT = Path(user_data.__file__).parent / "queue_volume/prepare-queues"


def set_aside_finished_jobs(queue: Path) -> str:
    done = subprocess.run(
        ["bash", "-c", f"source {SCRIPT}; set_aside_finished_jobs {queue}"],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_a_job_whose_body_is_gone_is_never_sent_again(tmp_path: Path) -> None:
    (tmp_path / "qfAAA").write_text("delivered")
    (tmp_path / "qfBBB").write_text("waiting")
    (tmp_path / "dfBBB").write_text("")

    said = set_aside_finished_jobs(tmp_path)

    assert {file.name for file in tmp_path.iterdir()} == {"QfAAA", "qfBBB", "dfBBB"}
    assert (tmp_path / "QfAAA").read_text() == "delivered"
    assert "job AAA" in said


def test_an_empty_queue_is_left_alone(tmp_path: Path) -> None:
    assert set_aside_finished_jobs(tmp_path) == ""
    assert not list(tmp_path.iterdir())
