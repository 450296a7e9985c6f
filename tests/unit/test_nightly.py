# SPDX-License-Identifier: GPL-2.0-or-later
"""Nights with pretended kernels and guests: what runs, what is tried again, what is kept."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import cli
from harness.errors import BuildError, ConfigError, ExitCode, HostError
from harness.history.records import Cell, CellState
from harness.history.store import History
from harness.nightly.config import read_config
from harness.nightly.night import Ended, run_night
from harness.testing.fakenight import CLEAN, FakeWorld, Kernels, bad, bug, write_series
from harness.triage import identity_of
from harness.verdict import Outcome, Verdict

SUBJECTS = ("x86/mm: Rename a helper", "x86/mm: Flush less", "x86/mm: Tidy up")
TOML = """
name = "dma"
[[series]]
source = "patches"
name = "dma"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_series(tmp_path / "patches", *SUBJECTS)
    (tmp_path / "nightly.toml").write_text(TOML)
    return tmp_path / "nightly.toml"


def run(
    file: Path, kernels: Kernels, said: Callable[[str], None] = lambda _: None
) -> tuple[FakeWorld, Ended]:
    with FakeWorld(kernels).instead() as world:
        return world, run_night(read_config(file), file.parent / "runs", said)


def cells(ended: Ended, number: int) -> list[Cell]:
    return [cell for cell in ended.night.cells if cell.key.patch_number == number]


def test_a_clean_night(file: Path) -> None:
    world, ended = run(file, {})
    # the base and the whole series first
    assert world.guests == [(0, 2), (3, 2), (1, 2), (2, 2)]
    assert [c.outcome for c in ended.night.cells] == [Outcome.PASS] * 4
    assert ended.exit_code == ExitCode.PASS
    assert ended.night.ended_s > ended.night.started_s
    assert ended.page.is_file()
    latest = ended.page.parent.parent / "latest"
    assert latest.resolve() == ended.page.parent.resolve()
    assert {p.name for p in ended.page.parent.iterdir()} == {
        "index.html", "mail.txt", "junit.xml", "ktap.txt", "kcidb.json", "runs",
    }  # fmt: skip
    assert (ended.page.parent.parent / "index.html").is_file()


def test_what_is_new_is_tried_again_once_and_both_runs_are_kept(file: Path) -> None:
    world, ended = run(file, {2: (bad("f"),), 3: (bad("f"), CLEAN)})
    # the whole series shows it first, and a fresh guest does not; so patch 2 is not asked again
    assert world.guests == [(0, 2), (3, 2), (3, 2), (1, 2), (2, 2)]
    (whole,) = cells(ended, 3)
    (seen,) = whole.sightings
    assert (seen.seen, seen.looked, seen.flaky) == (1, 2, True)
    assert whole.again
    assert whole.again != whole.run
    assert Path(whole.run).is_dir()
    assert Path(whole.again).is_dir()
    (second,) = cells(ended, 2)
    assert second.sightings[0].looked == 1
    assert not second.again
    assert ended.exit_code == ExitCode.FINDINGS


def test_what_only_the_second_guest_shows_is_kept_as_well(file: Path) -> None:
    _, ended = run(file, {3: (bad("f"), bad("f", "g"))})
    (whole,) = cells(ended, 3)
    assert [(s.place, s.seen, s.looked) for s in whole.sightings] == [("f", 2, 2), ("g", 1, 2)]
    assert whole.sightings[1].run == whole.again


def test_a_second_guest_that_died_on_the_way_makes_nothing_flaky(file: Path) -> None:
    died = Verdict(outcome=Outcome.ERROR, reason="the stream was cut")
    _, ended = run(file, {3: (bad("f"), died)})
    assert [(s.seen, s.looked) for s in cells(ended, 3)[0].sightings] == [(1, 1)]


def test_exit_code_is_about_what_is_new(file: Path) -> None:
    kernels: Kernels = {2: (bad("f"),), 3: (bad("f"),)}
    assert run(file, kernels)[1].exit_code == ExitCode.FINDINGS
    world, ended = run(file, kernels)
    assert ended.exit_code == ExitCode.PASS
    assert ended.night.number == 2
    # and nothing is tried twice
    assert len(world.guests) == 4
    _, ended = run(file, {2: (bad("f", "g"),), 3: (bad("f"),)})
    assert ended.exit_code == ExitCode.FINDINGS
    assert "fixed" not in (ended.page.parent / "mail.txt").read_text().partition("\n")[0]
    _, ended = run(file, {})
    assert ended.exit_code == ExitCode.PASS
    assert "2 fixed" in (ended.page.parent / "mail.txt").read_text().partition("\n")[0]


def test_a_kernel_that_does_not_build_costs_its_own_cell(file: Path) -> None:
    _, ended = run(file, {2: (BuildError("mm.c:1: no"),)})
    (failed,) = cells(ended, 2)
    assert (failed.outcome, failed.reason) == (Outcome.ERROR, "mm.c:1: no")
    assert ended.exit_code == ExitCode.CANNOT_JUDGE
    assert sum(c.outcome is Outcome.PASS for c in ended.night.cells) == 3


def test_a_host_that_failed_is_no_finding(file: Path) -> None:
    _, ended = run(file, {3: (HostError("no KVM"),)})
    assert cells(ended, 3)[0].outcome is Outcome.ERROR
    assert ended.exit_code == ExitCode.CANNOT_JUDGE


KNOWN = """
[[issue]]
rule = "guest-cache-flush"
place = "{place}"
link = "https://example.org/{place}"
expires = {expires}
"""


def test_known_issues_are_shown_and_do_not_count(file: Path) -> None:
    known = file.parent / "patches/known-issues.toml"
    known.write_text(KNOWN.format(place="f", expires="2999-12-31"))
    world, ended = run(file, {3: (bad("f"),)})
    assert ended.exit_code == ExitCode.PASS
    assert len(world.guests) == 4
    (seen,) = cells(ended, 3)[0].sightings
    assert (seen.known, seen.known_until) == ("https://example.org/f", "2999-12-31")
    page = ended.page.read_text()
    assert "https://example.org/f" in page
    assert "2999-12-31" in page
    # it never hides another
    world, ended = run(file, {3: (bad("f", "g"),)})
    assert ended.exit_code == ExitCode.FINDINGS


def test_an_expired_or_unseen_issue_is_told(file: Path) -> None:
    known = file.parent / "patches/known-issues.toml"
    known.write_text(
        KNOWN.format(place="f", expires="2020-01-01")
        + KNOWN.format(place="g", expires="2999-01-01")
    )
    _, ended = run(file, {3: (bad("f"),)})
    assert ended.exit_code == ExitCode.FINDINGS
    assert any("example.org/f" in note and "expired on 2020-01-01" in note for note in ended.notes)
    assert any("example.org/g" in note and "was not seen" in note for note in ended.notes)


def test_issues_of_the_night_hold_for_all_series(file: Path) -> None:
    file.write_text('known = "base.toml"\n' + TOML)
    (file.parent / "base.toml").write_text(KNOWN.format(place="f", expires="2999-12-31"))
    _, ended = run(file, {0: (bad("f"),)})
    assert ended.exit_code == ExitCode.PASS
    file.write_text('known = "base.toml"\n')
    _, ended = run(file, {0: (bad("f"),)})
    assert ended.exit_code == ExitCode.PASS
    assert ended.night.cells[0].sightings[0].known


def test_known_issues_that_are_named_have_to_be_there(file: Path) -> None:
    file.write_text(TOML + 'known = "nowhere.toml"\n')
    with pytest.raises(ConfigError, match=r"nowhere\.toml"):
        run(file, {})


def test_series_on_one_base_share_its_run(file: Path) -> None:
    write_series(file.parent / "more", "mm: Another")
    file.write_text(f'{TOML}\n[[series]]\nsource = "more"\n')
    world, ended = run(file, {0: (bad("f"),)})
    assert world.guests.count((0, 2)) == 2
    bases = cells(ended, 0)
    assert [cell.key.series for cell in bases] == ["dma", "more"]
    assert bases[0].run == bases[1].run
    assert all(cell.sightings[0].seen == 2 for cell in bases)


def test_a_kernel_of_two_series_is_judged_by_the_issues_of_each(file: Path) -> None:
    # The second series is the first patch of the first one.
    write_series(file.parent / "more", SUBJECTS[0])
    file.write_text(f'{TOML}\n[[series]]\nsource = "more"\nknown = "more.toml"\n')
    (file.parent / "more.toml").write_text(KNOWN.format(place="f", expires="2999-12-31"))
    _, ended = run(file, {1: (bad("f"),), 2: (bad("f"),), 3: (bad("f"),)})
    assert len({cell.run for cell in cells(ended, 1)}) == 1
    known = {cell.key.series: cell.sightings[0].known for cell in cells(ended, 1)}
    assert known == {"dma": "", "more": "https://example.org/f"}
    assert ended.exit_code == ExitCode.FINDINGS


def test_a_series_that_cannot_be_read_costs_only_itself(file: Path) -> None:
    file.write_text(f'{TOML}\n[[series]]\nsource = "gone.mbox"\n')
    _, ended = run(file, {})
    assert len(ended.night.cells) == 4
    assert ended.exit_code == ExitCode.CANNOT_JUDGE
    assert any("gone.mbox" in note for note in ended.notes)
    file.write_text('[[series]]\nsource = "gone.mbox"\n')
    with pytest.raises(ConfigError, match=r"gone\.mbox"):
        run(file, {})


def test_a_base_that_cannot_be_had_costs_its_cells(file: Path) -> None:
    file.write_text('bases = ["linux-source-6.12", "nowhere"]\n' + TOML)
    with FakeWorld({}).instead() as world:
        real = world.base_of

        def base_of(word: str) -> object:
            if word == "nowhere":
                raise HostError("no such base")
            return real(word)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.nightly.sources.base_of", base_of)
            ended = run_night(read_config(file), file.parent / "runs", lambda _: None)
    lost = [c for c in ended.night.cells if c.key.base == "nowhere"]
    assert {(c.outcome, c.reason) for c in lost} == {(Outcome.ERROR, "no such base")}
    assert len(world.guests) == 4
    assert ended.exit_code == ExitCode.CANNOT_JUDGE


def test_without_series_the_bases_run(file: Path) -> None:
    file.write_text("vcpus = [1, 2]\n")
    world, ended = run(file, {})
    assert world.guests == [(0, 1), (0, 2)]
    assert ended.exit_code == ExitCode.PASS


def test_the_budget_ends_the_night(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("budget_minutes = 1\n" + TOML)
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def told(what: str) -> None:
        now[0] += 50.0 if what.startswith("guest") else 0.0

    with FakeWorld({}, told).instead() as world:
        ended = run_night(read_config(file), file.parent / "runs", lambda _: None)
    # One is taken whatever it takes; then there is no time for another of 50 s.
    assert world.guests == [(0, 2)]
    states = [c.state for c in ended.night.cells]
    assert states.count(CellState.PLANNED) == 3
    assert ended.exit_code == ExitCode.PASS
    # the next night begins with what was left out
    with FakeWorld({}, told).instead() as world:
        run_night(read_config(file), file.parent / "runs", lambda _: None)
    assert world.guests == [(3, 2)]


class Killed(BaseException):
    """What a kill is inside of one process: nothing below may catch it."""


def kill_at(moment: str, file: Path, kernels: Kernels) -> None:
    """A night that is killed before this happens, `guest 3` for example."""

    dead: list[str] = []

    def told(what: str) -> None:
        # What is dead does nothing more, on any thread.
        if dead or what == moment:
            dead.append(what)
            raise Killed

    with FakeWorld(kernels, told).instead(), pytest.raises(Killed):
        run_night(read_config(file), file.parent / "runs", lambda _: None)


def test_what_was_tried_again_before_a_kill_is_not_tried_again(file: Path) -> None:
    kernels: Kernels = {2: (bad("f"),), 3: (bad("f"),)}
    kill_at("guest 1", file, kernels)
    world, ended = run(file, kernels)
    assert world.guests == [(1, 2), (2, 2)]
    assert cells(ended, 3)[0].sightings[0].looked == 2


def test_a_budget_is_for_the_night_and_not_for_each_start(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_800_000_000.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def told(what: str) -> None:
        if what == "guest 3":
            raise Killed
        now[0] += 40.0 if what.startswith("guest") else 0.0

    file.write_text("budget_minutes = 3\n" + TOML)
    with FakeWorld({}, told).instead(), pytest.raises(Killed):
        run_night(read_config(file), file.parent / "runs", lambda _: None)
    file.write_text("budget_minutes = 1\n" + TOML)
    world, ended = run(file, {})
    # 40 s of the minute are gone, so there is no time for another guest.
    assert not world.guests
    assert ended.night.ended_s


def test_many_guests_at_once_find_the_same(file: Path) -> None:
    file.write_text("vcpus = [1, 2, 4]\n" + TOML)
    with FakeWorld({2: (bad("f"),), 3: (bad("f"),)}).instead() as world:
        world.at_once = 4
        ended = run_night(read_config(file), file.parent / "runs", lambda _: None)
    assert {c.outcome for c in ended.night.cells if c.key.patch_number > 1} == {Outcome.FAIL}
    assert len(ended.night.cells) == 12
    # one of the six cells that show it is tried again
    assert len(world.guests) == 13
    assert sum(bool(c.again) for c in ended.night.cells) == 1


def test_two_nights_at_once_are_refused(file: Path) -> None:
    def told(what: str) -> None:
        if what == "guest 0":
            with pytest.raises(HostError, match="another night"):
                run_night(read_config(file), file.parent / "runs", lambda _: None)

    with FakeWorld({}, told).instead() as world:
        run_night(read_config(file), file.parent / "runs", lambda _: None)
    assert len(world.guests) == 4


def test_an_old_night_is_not_gone_on_with(file: Path) -> None:
    with History(file.parent / "runs/history.sqlite") as history:
        old = history.start_night("dma", 1000.0)
    _, ended = run(file, {})
    assert ended.night.number == old + 1
    with History(file.parent / "runs/history.sqlite") as history:
        assert history.night(old).ended_s


def test_pages_of_a_night_that_was_killed_at_its_end_say_that_it_ended(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(History, "end_night", kill)
        with pytest.raises(KeyboardInterrupt):
            run(file, {})
    pages = [file.parent / "runs/nights" / name for name in ("index.html", "0001/index.html")]
    assert not any("goes on" in page.read_text() for page in pages)
    world, ended = run(file, {})
    assert (ended.night.number, world.guests) == (1, [])


def test_runs_of_old_nights_are_removed(file: Path) -> None:
    file.write_text("keep_nights = 2\n" + TOML)
    ended = [run(file, {})[1] for _ in range(3)]
    assert [(e.page.parent / "runs").exists() for e in ended] == [False, True, True]
    assert all(e.page.exists() for e in ended)


def test_the_exit_code_says_whether_a_night_was_cut_short(file: Path) -> None:
    words = ["nightly", str(file), "--unfinished", "--runs", str(file.parent / "runs")]
    assert cli.main(words) == 1
    with History(file.parent / "runs/history.sqlite") as history:
        number = history.start_night("dma", time.time())
    assert cli.main(words) == 0
    world, ended = run(file, {})
    assert ended.night.number == number
    assert len(world.guests) == 4
    assert cli.main(words) == 1


def test_the_command(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with FakeWorld({3: (bad("f"),)}).instead():
        code = cli.main(["nightly", str(file), "--runs", str(file.parent / "runs")])
    assert code == ExitCode.FINDINGS
    out = capsys.readouterr().out
    assert "guest-cache-flush in f" in out
    assert "page: " in out
    assert identity_of(bug("f")) in (file.parent / "runs/nights/0001/index.html").read_text()
    assert cli.main(["history", "--file", str(file.parent / "runs/history.sqlite")]) == 0
    assert "guest-cache-flush in f" in capsys.readouterr().out
