# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules that are judged: one row each, for findings and for reports."""

from dataclasses import dataclass

from harness.verdict import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule of DESIGN.md section 3. `fact` says what breaks it, `look_at` where to look then."""

    id: str
    # who has to keep it: "guest", "VMM", "host" or "both"
    who: str
    severity: Severity
    fact: str
    look_at: str


_ROWS = (
    Rule(
        id="guest-cache-flush",
        who="guest",
        severity=Severity.FAIL,
        fact="a line is dirty under the private key when its page becomes shared",
        look_at="the cache flush of the range, through its private mapping, before the page "
        "table entries change: the first cpa_flush() in __set_memory_enc_pgtable()",
    ),
    Rule(
        id="guest-tlb-flush",
        who="guest",
        severity=Severity.FAIL,
        fact="a vCPU did not invalidate a translation after its page table entry changed, "
        "or used one that the page tables no longer hold",
        look_at="the flush of the linear translations on every vCPU after the page table entries "
        "change: the second cpa_flush() in __set_memory_enc_pgtable()",
    ),
    Rule(
        id="private-access-to-shared",
        who="guest",
        severity=Severity.FAIL,
        fact="the page tables map a shared page as private: it was accessed, or the order of "
        "MapGPA and page table change left it open to be",
        look_at="the order of MapGPA and the change of the page table entry, and other mappings "
        "of the page (direct map, vmalloc, user space) that were left private",
    ),
    Rule(
        id="shared-access-to-private",
        who="guest",
        severity=Severity.REPORT,
        fact="an access through a shared mapping to a private page, outside the conversion itself",
        look_at="other mappings of the page that were left shared, and whether MapGPA to shared "
        "came at all",
    ),
    Rule(
        id="unaccepted-access",
        who="guest",
        severity=Severity.FAIL,
        fact="a pending page was accessed",
        look_at="whether TDG.MEM.PAGE.ACCEPT was issued for the whole range after MapGPA to "
        "private, and its status checked",
    ),
    Rule(
        id="double-accept",
        who="guest",
        severity=Severity.FAIL,
        fact="TDG.MEM.PAGE.ACCEPT on a page that was accepted before: its contents are replaced",
        look_at="who accepts this range twice; the second time a VMM may have put in another page",
    ),
    Rule(
        id="accept-shared",
        who="guest",
        severity=Severity.FAIL,
        fact="TDG.MEM.PAGE.ACCEPT on a shared page",
        look_at="whether MapGPA to private came before the accept and succeeded",
    ),
    Rule(
        id="redundant-flush",
        who="guest",
        severity=Severity.REPORT,
        fact="lines were flushed that no rule asks for",
        look_at="a flush that can be left out: shared to private is the VMM's to flush, and "
        "private to shared needs each line once",
    ),
    Rule(
        id="tdcall-contract",
        who="guest",
        severity=Severity.FAIL,
        fact="a TDCALL or TDVMCALL with operands that break its contract, or of an unknown leaf",
        look_at="the registers of the call against the TDX module ABI and the GHCI specification",
    ),
    Rule(
        id="mapgpa-failure-handling",
        who="guest",
        severity=Severity.FAIL,
        fact="after a MapGPA that said RETRY or failed, the guest did not go on where it was told "
        "to, or used pages whose conversion had failed",
        look_at="what the caller does when set_memory_encrypted() or set_memory_decrypted() "
        "fails: the pages may be neither freed nor used again",
    ),
    Rule(
        id="vmm-cache-flush",
        who="VMM",
        severity=Severity.FAIL,
        fact="the VMM did not flush lines dirty under the shared key when their page became "
        "private: written back later, they poison it",
        look_at="the VMM's cache flush before it adds the page to the TD (CLFLUSH before "
        "TDH.MEM.PAGE.AUG)",
    ),
    Rule(
        id="vmm-ept-flush",
        who="VMM",
        severity=Severity.FAIL,
        fact="a guest-physical or combined mapping survived the change of its page's owner",
        look_at="the VMM's TDH.MEM.RANGE.BLOCK, TDH.MEM.TRACK and the kick of the vCPUs",
    ),
    Rule(
        id="dma-data",
        who="both",
        severity=Severity.FAIL,
        fact="a device and the guest disagree about the bytes of a DMA buffer",
        look_at="the conversion of the buffer, its bounce through swiotlb, and the direction of "
        "the mapping",
    ),
    Rule(
        id="host-mce",
        who="host",
        severity=Severity.FAIL,
        fact="the host took a machine check",
        look_at="who wrote the page with another key, and the conversion of the page before",
    ),
    Rule(
        id="guest-mce",
        who="guest",
        severity=Severity.FAIL,
        fact="the guest took a machine check",
        look_at="who wrote the page with another key, and the conversion of the page before",
    ),
    Rule(
        id="kernel-log",
        who="guest",
        severity=Severity.FAIL,
        fact="the guest kernel's log holds an oops, a warning, a lockup or a panic",
        look_at="the trace in the console log, from the line that is named on",
    ),
    Rule(
        id="workload",
        who="guest",
        severity=Severity.FAIL,
        fact="a step of the workload failed by the guest's own check",
        look_at="the step's output in steps.jsonl",
    ),
)

RULES = {rule.id: rule for rule in _ROWS}
