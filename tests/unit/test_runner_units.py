# SPDX-License-Identifier: GPL-2.0-or-later
"""The systemd units of ansible/roles/runner, with variables in them."""

import configparser
import re
import shlex
import shutil
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from harness import proc
from harness.arguments import build_parser

ROLE = Path(__file__).resolve().parents[2] / "ansible/roles/runner"
UNITS = sorted(path.name for path in (ROLE / "templates").glob("*.j2"))


def variables(source: Path, *, mail: str = "") -> dict[str, object]:
    """The role's defaults, which are plain words, and what has none."""
    text = (ROLE / "defaults/main.yml").read_text()
    found: dict[str, object] = dict(re.findall(r'(?m)^(runner_\w+): "?([^"\n]*)"?$', text))
    night = {"name": "dma", "calendar": "*-*-* 21:00"}
    return {
        **found,
        "runner_user": "daemon",
        "runner_source": source,
        "runner_mail_to": mail,
        "item": night,
    }


def rendered(name: str, source: Path = Path("/opt/tdharness"), *, mail: str = "") -> str:
    environment = Environment(
        loader=FileSystemLoader(ROLE / "templates"),
        undefined=StrictUndefined,
        # as ansible has it
        trim_blocks=True,
        autoescape=False,
    )
    return environment.get_template(name).render(variables(source, mail=mail))


def parsed(text: str) -> configparser.RawConfigParser:
    # Twice the same key is an error here.
    unit = configparser.RawConfigParser()
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    return unit


def test_the_units_are_there() -> None:
    assert UNITS == [
        "tdharness-mail@.service.j2",
        "tdharness-nightly@.service.j2",
        "tdharness-nightly@.timer.j2",
        "tdharness-resume@.service.j2",
    ]


@pytest.mark.parametrize("name", ["tdharness-nightly@.service.j2", "tdharness-resume@.service.j2"])
def test_the_commands_are_ones_that_tdharness_takes(name: str) -> None:
    service = parsed(rendered(name))["Service"]
    lines = [service[key] for key in ("ExecStart", "ExecCondition") if key in service]
    words = [shlex.split(line) for line in lines if "tdharness nightly" in line]
    assert words
    for program, *arguments in words:
        assert program == "/opt/tdharness/.venv/bin/tdharness"
        found = build_parser().parse_args(arguments)
        assert (found.command, found.file, found.runs) == (
            "nightly", Path("nightly.toml"), Path("runs"),
        )  # fmt: skip
    assert service["WorkingDirectory"] == "/var/lib/tdharness/%i"


def test_a_night_goes_on_after_a_kill_and_mails_only_when_told() -> None:
    plain, mailing = (
        parsed(rendered("tdharness-nightly@.service.j2", mail=to)) for to in ("", "a@example.org")
    )
    assert plain["Service"]["Restart"] == "on-failure"
    # 1: findings; 2 and 4: what the next try does not mend
    assert "1" in plain["Service"]["SuccessExitStatus"].split()
    assert plain["Service"]["RestartPreventExitStatus"].split() == ["2", "4"]
    assert "OnFailure" not in plain["Unit"]
    assert (
        mailing["Unit"]["OnFailure"] == mailing["Unit"]["OnSuccess"] == "tdharness-mail@%i.service"
    )
    assert parsed(rendered("tdharness-nightly@.timer.j2"))["Timer"]["OnCalendar"] == "*-*-* 21:00"


@pytest.fixture
def verify(tmp_path: Path) -> Path:
    """A directory of units as systemd would find them, whose programs are there."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze, of Debian's package systemd")
    program = tmp_path / "source/.venv/bin/tdharness"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in UNITS:
        text = rendered(name, tmp_path / "source", mail="a@example.org")
        # No mail is sent from here.
        text = text.replace("/usr/sbin/sendmail", str(program))
        (tmp_path / name.removesuffix(".j2").replace("@.", "@dma.")).write_text(text)
    return tmp_path


def analyze(place: Path) -> str:
    units = sorted(str(path) for path in place.glob("tdharness-*"))
    result = proc.run(["systemd-analyze", "verify", "--man=no", *units], timeout_s=60, check=False)
    return result.stderr


def test_systemd_takes_the_units(verify: Path) -> None:
    assert "tdharness" not in analyze(verify)


def test_systemd_does_not_take_anything(verify: Path) -> None:
    unit = verify / "tdharness-nightly@dma.service"
    unit.write_text(unit.read_text() + "Restrat=always\n")
    assert "Restrat" in analyze(verify)
