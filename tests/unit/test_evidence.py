# SPDX-License-Identifier: GPL-2.0-or-later
import json
from pathlib import Path

import pytest

from harness.evidence import load
from harness.judge import judge
from harness.testing.saved import GPA, PAGE, Saved, bad, good
from harness.verdict import Outcome


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", b"{"),
        ("run.json", b"[]"),
        ("run.json", b"[" * 100_000),
        ("steps.jsonl", b"{}\n"),
        ("steps.jsonl", b"not json\n"),
        ("steps.jsonl", b'{"name": "x", "ok": true, "dma": [1]}\n'),
        ("steps.jsonl", b'{"name": "cut sho'),
    ],
)
def test_broken_files_are_an_error(tmp_path: Path, name: str, content: bytes) -> None:
    saved = Saved(tmp_path)
    tmp_path.joinpath(name).write_bytes(content)
    verdict = judge(saved.run)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason


@pytest.mark.parametrize("content", [b"\xff\x00", b"[]", b'{"text_base": "x", "modules": [1]}'])
def test_broken_symbols_cost_nothing_but_symbols(tmp_path: Path, content: bytes) -> None:
    saved = Saved(tmp_path, bad().encode())
    saved.run.symbols_json.write_bytes(content)
    saved.facts({"td_mode": "stub", "kernel": {"image": "/nonexistent", "system_map": 7}})
    assert judge(saved.run).outcome is Outcome.FAIL


def test_modules_of_the_guest_give_symbols(tmp_path: Path) -> None:
    base = 0xFFFFFFFFC0000000
    s = good()
    s.convert(GPA, PAGE, to_shared=True, dirty=1, pc=base + 4)
    saved = Saved(tmp_path, s.encode())
    saved.facts({"td_mode": "stub", "kernel": {"system_map": str(tmp_path / "System.map")}})
    tmp_path.joinpath("System.map").write_text(
        "ffffffff81000000 T _text\nffffffff81000100 T f\nffffffff81000200 T g\n"
    )
    saved.run.symbols_json.write_text(
        json.dumps(
            {
                "text_base": 0xFFFFFFFF9A000000,
                "modules": {"tdh\x1b": {"base": base, "symbols": {"go": base}}},
            }
        )
    )
    (finding,) = judge(saved.run).findings
    assert str(finding.site) == "go+0x4/0x1000 [tdh\\x1b]"
    assert str(load(saved.run).symbols.site(0xFFFFFFFF9A000110)) == "f+0x10/0x100"


def test_evidence_is_loaded_once(tmp_path: Path) -> None:
    saved = Saved(tmp_path)
    evidence = load(saved.run)
    saved.run.events.unlink()
    assert judge(saved.run, evidence=evidence, write=False).outcome is Outcome.PASS
    assert not saved.run.verdict_json.exists()
