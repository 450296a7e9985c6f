# SPDX-License-Identifier: GPL-2.0-or-later
"""What single instructions do to lines, translations and pages: the table for tiny.py.

The expectations are written from the manuals. SDM: Intel's Software Developer's Manual, by volume
and instruction or section; ABI: the Intel TDX Module ABI specification, by leaf; GHCI: the
Guest-Host-Communication Interface, by function; model: what DESIGN.md section 3 lays down where
the manuals leave a choice to the processor.

TCG has neither PCID nor INVPCID: MOV to CR3 with bit 63 set is #GP there, INVPCID #UD, so these are
held by tests/unit/plugin/whole_stale.c on the fake machine alone.
"""

from collections.abc import Iterator

from harness.testing.tiny import Case

SHARED_BIT = 1 << 52
PAGE, LARGE, GIB = 4096, 2 << 20, 1 << 30
INVALID = 0xC0000100 << 32
ALREADY, MISMATCH = 0x00000B0A << 32, 0xC0000B0B << 32
WALK_FAILED = 0xC0000B00 << 32 | 1
BAD_OPERAND, BAD_ALIGNMENT = 1 << 63, 1 << 63 | 2

# Rows: a name, perhaps a source, what is done, and what comes of it.
Words = tuple[str, ...]
Row = tuple[str, Words, Words]
Sourced = tuple[str, str, Words, Words]
Status = tuple[str, str, int]
Leaf = tuple[str, int, Words, int]

STORE = "movabsq ${page}, %rdi; movq %rdi, (%rdi)"
FS_BASE, GS_BASE = 0xC0000100, 0xC0000101


def code(*lines: str) -> str:
    """Instructions, one after the other."""
    return "\n".join(lines)


def vmcall(function: int, r12: str = "0", r13: str = "0", r14: str = "0") -> str:
    """TDG.VP.VMCALL of a function of the GHCI."""
    registers = zip(("r12", "r13", "r14"), (r12, r13, r14), strict=True)
    loads = [f"movabsq ${value}, %{name}" for name, value in registers]
    return code(*loads, "xorl %r10d, %r10d", f"movl ${function:#x}, %r11d", "call vmcall")


def map_gpa(shared: int, gpa: str = "{gpa}", size: int = PAGE) -> str:
    """MapGPA."""
    return vmcall(0x10001, f"({gpa} + {SHARED_BIT if shared else 0})", str(size))


def tdcall(rax: int, rcx: str = "0", rdx: str = "0", r8: str = "0") -> str:
    """A leaf of the module."""
    registers = zip(("rcx", "rdx", "r8"), (rcx, rdx, r8), strict=True)
    loads = [f"movabsq ${value}, %{name}" for name, value in registers]
    return code(f"movl ${rax:#x}, %eax", *loads, "tdcall")


def write_base(msr: int, value: str) -> str:
    """The base of FS or GS."""
    return code(
        f"movabsq ${value}, %rax", "movq %rax, %rdx", "shrq $32, %rdx", f"movl ${msr:#x}, %ecx",
        "wrmsr",
    )  # fmt: skip


FLUSH_FORMS = {
    "base": "{flush} (%rdi)",
    "last-byte": "{flush} 63(%rdi)",
    "disp32": "leaq -0x1000(%rdi), %rsi; {flush} 0x1000(%rsi)",
    "negative-disp8": "leaq 64(%rdi), %rsi; {flush} -64(%rsi)",
    "sib": "movl $16, %ecx; leaq -128(%rdi), %rsi; {flush} (%rsi, %rcx, 8)",
    "sib-disp8": "movl $16, %ecx; leaq -40(%rdi), %rsi; {flush} 8(%rsi, %rcx, 2)",
    "sib-no-base": "movq %rdi, %rcx; shrq %rcx; {flush} (, %rcx, 2)",
    "rex-b": "movq %rdi, %r9; {flush} (%r9)",
    "rex-x": "movl $4, %r10d; leaq -16(%rdi), %rsi; {flush} (%rsi, %r10, 4)",
    "r12": "movq %rdi, %r12; {flush} (%r12)",
    "r13": "movq %rdi, %r13; {flush} (%r13)",
    "rbp": "movq %rdi, %rbp; {flush} (%rbp)",
    "rsp": "movq %rsp, %r8; movq %rdi, %rsp; {flush} (%rsp); movq %r8, %rsp",
    "r12-index": "movl $8, %r12d; leaq -8(%rdi), %rsi; {flush} (%rsi, %r12, 1)",
    # The difference is nothing: what as takes for a number would be a displacement.
    "rip": "{flush} {{gpa}} + rip_{name} - end_{name}(%rip); rip_{name}: end_{name}:",
    "eip": "{flush} {{gpa}} + eip_{name} - eend_{name}(%eip); eip_{name}: eend_{name}:",
    "addr32": "movabsq $({{gpa}} + (0x5555 << 32)), %rsi; {flush} (%esi)",
    "addr32-sib": "movl ${{gpa}} - 32, %esi; movabsq $(16 + (7 << 32)), %rcx;"
    " {flush} (%esi, %ecx, 2)",
    "es": ".byte 0x26; {flush} (%rdi)",
    "fs": write_base(FS_BASE, "{{page}} - 0x100") + "; {flush} %fs:0x100",
    "gs": write_base(GS_BASE, "{{page}} - 0x40") + "; movl $0x40, %esi; {flush} %gs:(%rsi)",
    "fs-addr32": write_base(FS_BASE, "{{page}} - 0x40")
    + "; movabsq $((9 << 32) + 0x40), %rsi; {flush} %fs:(%esi)",
}


def flush_cases() -> Iterator[Case]:
    """A store, a flush, MapGPA: was the line still dirty?"""
    for form, text in FLUSH_FORMS.items():
        for flush in ("clflush", "clflushopt", "clwb"):
            name = f"{flush}-{form}"
            lines = text.format(flush=flush, name=f"{flush}_{form}".replace("-", "_"))
            yield Case(
                name, f"SDM 2 {flush.upper()}; 2.1.5 and 2.2.1 for the operand",
                code(STORE, lines, map_gpa(1)), ("convert 0",),
            )  # fmt: skip
    others: list[tuple[str, str, str, Words]] = [
        ("nothing", "model: caches evict nothing", "", ("convert 1",)),
        ("next-line", "SDM 2 CLFLUSH", "clflush 64(%rdi)", ("convert 1",)),
        (
            "byte-before", "SDM 2 CLFLUSH", "movq %rdi, 64(%rdi); clflush 63(%rdi)", ("convert 1",),
        ),
        ("fences", "SDM 2 MFENCE, SFENCE", "mfence; sfence; lfence", ("convert 1",)),
        ("prefetchw", "SDM 2 PREFETCHW", "prefetchw (%rdi)", ("convert 1",)),
        ("cldemote", "SDM 2 CLDEMOTE: a hint", ".byte 0x0f, 0x1c, 0x07", ("convert 1",)),
        ("invlpg-is-no-flush", "SDM 2 INVLPG", "invlpg (%rdi)", ("convert 1",)),
        ("wbinvd", "SDM 2 WBINVD", "wbinvd", ("cache 09", "convert 0")),
        ("wbnoinvd", "SDM 2 WBNOINVD", "wbnoinvd", ("cache 09", "convert 0")),
        ("invd", "SDM 2 INVD", "invd", ("cache 08", "convert 0")),
        (
            "flush-by-another-mapping", "SDM 2 CLFLUSH: by physical address",
            "movabsq ${nonglobal}, %rsi; clflush (%rsi)", ("convert 0",),
        ),
        (
            "flush-by-the-other-key", "TDX: lines of two KeyIDs are two lines",
            "movabsq ${shared}, %rsi; clflush (%rsi)", ("wrong", "convert 1"),
        ),
        (
            "two-lines", "SDM 2 CLFLUSH: one line", "movq %rdi, 60(%rdi); clflush (%rdi)",
            ("convert 1",),
        ),
        ("dirty-again", "SDM 2 CLFLUSH", "clflush (%rdi); movb $1, (%rdi)", ("convert 1",)),
    ]  # fmt: skip
    for name, source, lines, expected in others:
        yield Case(name, source, code(STORE, lines, map_gpa(1)), expected)


def set_shared(pte: str) -> str:
    """The store that gives the entry the shared bit."""
    return code(f"movl ${pte}, %edi", f"movabsq ${SHARED_BIT}, %rax", "orq %rax, (%rdi)")


PAID, OWED = ("change", "convert 0"), ("change", "stale", "convert 0")
USED = ("change", "used", "wrong", "stale", "convert 0")
RELOAD = "movq %cr3, %rax; movq %rax, %cr3"
TOGGLE = "movq %cr4, %rax; xorq $0x80, %rax; movq %rax, %cr4; xorq $0x80, %rax; movq %rax, %cr4"
FLUSHES = (
    # name, source, code with the address in RDI, whether global and other entries are invalidated
    ("nothing", "model: entries stay", "", False, False),
    ("invlpg", "SDM 2 INVLPG", "invlpg (%rdi)", True, True),
    ("invlpg-end", "SDM 2 INVLPG: the page of the address", "invlpg 0xfff(%rdi)", True, True),
    ("invlpg-sib", "SDM 2 INVLPG", "movl $8, %r9d; invlpg -8(%rdi, %r9)", True, True),
    ("invlpg-next", "SDM 2 INVLPG", "invlpg 0x1000(%rdi)", False, False),
    ("mov-cr3", "SDM 3 5.10.4.1: all but global ones", RELOAD, False, True),
    ("cr4-pge", "SDM 3 5.10.4.1: all, global ones too", TOGGLE, True, True),
    ("cr4-same", "SDM 3 5.10.4.1", "movq %cr4, %rax; movq %rax, %cr4", False, False),
    ("cr0-wp", "SDM 3 5.10.4.1: PG alone counts",
     "movq %cr0, %rax; xorq $0x10000, %rax; movq %rax, %cr0", False, False),
    ("cpuid", "SDM 3 9.3: serializes, invalidates nothing", "xorl %eax, %eax; cpuid", False, False),
    ("mfence", "SDM 2 MFENCE", "mfence", False, False),
)  # fmt: skip


def translation_cases() -> Iterator[Case]:
    """An entry turns shared, an invalidation, MapGPA: who still owes?"""
    for name, source, lines, pays_global, pays in FLUSHES:
        for kind, pte, paid in (("page", "pte", pays_global), ("nonglobal", "nonglobal_pte", pays)):
            address = f"movabsq ${{{kind}}}, %rdi"
            yield Case(
                f"{name}-{kind}", source,
                code(set_shared(f"{{{pte}}}"), address, lines, map_gpa(1)), PAID if paid else OWED,
            )  # fmt: skip
    change, address = set_shared("{pte}"), "movabsq ${page}, %rdi"
    clear, absent = "movl ${pte}, %esi; movq (%rsi), %rdx; movq $0, (%rsi)", "SDM 3 5.10.4.2"
    back = code(f"movabsq ${SHARED_BIT}, %rax", "orq %rax, %rdx", "movq %rdx, (%rsi)")
    large, at = set_shared("{large_pte}"), "movabsq ${large} + 0x123456, %rdi"
    to_shared = map_gpa(1, "{large_gpa}")
    others: list[Sourced] = [
        ("use-of-the-old-one", "SDM 3 5.10.2.3", (change, address, "movq %rdi, (%rdi)"), USED),
        ("clflush-uses", "SDM 2 CLFLUSH: as a load", (change, address, "clflush (%rdi)"), USED),
        ("flush-before", "SDM 3 5.10.2.3: loaded anew", (address, "invlpg (%rdi)", change), OWED),
        ("not-present-first", absent, (clear, back), OWED),
        ("not-present-flushed", absent, (clear, address, "invlpg (%rdi)", back), PAID),
        ("not-present-reload", absent, (clear, RELOAD, back), OWED),
        ("not-present", absent, (clear,), OWED),
        ("not-present-gone", absent, (clear, address, "invlpg (%rdi)"), ("convert 0",)),
        ("not-present-and-back", absent, (clear, "movq %rdx, (%rsi)"), ("convert 0",)),
    ]  # fmt: skip
    for name, source, done, expected in others:
        yield Case(name, source, code(*done, map_gpa(1)), expected)
    rows: list[Row] = [
        ("nothing", (), OWED), ("invlpg", (at, "invlpg (%rdi)"), PAID),
        ("cr4-pge", (TOGGLE,), PAID), ("mov-cr3", (RELOAD,), OWED),
        ("invlpg-next", (at, "invlpg 0x200000(%rdi)"), OWED),
    ]  # fmt: skip
    for name, done, expected in rows:
        yield Case(f"{name}-2m", "SDM 2 INVLPG", code(large, *done, to_shared), expected)


PENDING = code(map_gpa(1), map_gpa(0))
LARGE_PENDING = code(map_gpa(1, "{large_gpa}", LARGE), map_gpa(0, "{large_gpa}", LARGE))
CONVERTED = ("convert 0", "convert 0")


def accept_cases() -> Iterator[Case]:
    """MEM.PAGE.ACCEPT of pages in each state, and with each bad operand."""
    source = "ABI TDG.MEM.PAGE.ACCEPT"
    small, large = tdcall(6, "{gpa}"), tdcall(6, "({large_gpa} + 1)")
    whole, one = (map_gpa(1, "{large_gpa}", LARGE), map_gpa(1, "{large_gpa}"))
    part = code(one, map_gpa(0, "{large_gpa}"))
    rows: list[Row] = [
        ("pending", (PENDING, small), (*CONVERTED, "accept 0x0")),
        ("accepted", (small,), (f"accept {ALREADY:#x}",)),
        ("twice", (PENDING, small, small), (*CONVERTED, "accept 0x0", f"accept {ALREADY:#x}")),
        ("shared", (map_gpa(1), small), ("convert 0", f"accept {WALK_FAILED:#x}")),
        ("2m", (LARGE_PENDING, large), (*CONVERTED, "accept 0x0")),
        ("2m-accepted", (large,), (f"accept {ALREADY | 1:#x}",)),
        ("2m-shared", (whole, large), ("convert 0", f"accept {WALK_FAILED:#x}")),
        ("2m-part-shared", (one, large), ("convert 0", f"accept {WALK_FAILED:#x}")),
        ("2m-part-pending", (part, large), (*CONVERTED, f"accept {MISMATCH | 1:#x}")),
        ("2m-by-4k", (LARGE_PENDING, tdcall(6, "{large_gpa}")), (*CONVERTED, "accept 0x0")),
    ]  # fmt: skip
    for name, lines, expected in rows:
        yield Case(f"accept-{name}", source, code(*lines), expected)
    refused: list[Status] = [
        ("1g", f"({GIB} + 2)", INVALID | 1), ("512g", f"({1 << 39} + 3)", INVALID | 1),
        ("level-7", "({gpa} + 7)", INVALID | 1), ("reserved", "({gpa} + 8)", INVALID | 1),
        ("2m-unaligned", f"({LARGE + PAGE} + 1)", INVALID | 1),
        ("shared-bit", f"({{gpa}} + {SHARED_BIT})", INVALID | 1),
        ("bit-63", f"({{gpa}} + {1 << 63})", INVALID | 1),
        ("no-ram", f"{2 << 30}", WALK_FAILED), ("2m-no-ram", f"({2 << 30} + 1)", WALK_FAILED),
    ]  # fmt: skip
    for name, rcx, status in refused:
        yield Case(f"accept-{name}", source, tdcall(6, rcx), (f"accept {status:#x}",))


def access_cases() -> Iterator[Case]:
    """Accesses by either mapping to a page in each state."""
    small = tdcall(6, "{gpa}")
    shared, private = "movabsq ${shared}, %rdi", "movabsq ${page}, %rdi"
    zeroed = "cmpq $0, (%rdi); je 1f; ud2; 1:"
    stored = (STORE, "clflush (%rdi)", PENDING, small, zeroed)
    sourced: list[Sourced] = [
        ("load-private", "ABI: private and accepted", (private, "movq (%rdi), %rax"), ()),
        ("load-pending", "ABI: EPT violation", (PENDING, private, "movq (%rdi), %rax"),
         (*CONVERTED, "unaccepted")),
        ("store-shared-as-private", "GHCI MapGPA", (map_gpa(1), private, "movq %rdi, (%rdi)"),
         ("convert 0", "wrong")),
        ("store-private-as-shared", "GHCI MapGPA", (shared, "movq %rdi, (%rdi)"), ("wrong",)),
        ("store-shared", "GHCI MapGPA", (map_gpa(1), shared, "movq %rdi, (%rdi)"), ("convert 0",)),
        ("shared-lines-to-private", "model: the VMM's to flush",
         (map_gpa(1), shared, "movq %rdi, (%rdi)", map_gpa(0)), ("convert 0", "convert 1")),
        ("shared-lines-flushed", "SDM 2 CLFLUSH",
         (map_gpa(1), shared, "movq %rdi, (%rdi); clflush (%rdi)", map_gpa(0)), CONVERTED),
        ("accept-zeroes", "ABI TDG.MEM.PAGE.ACCEPT: the page is zeroed", stored,
         (*CONVERTED, "accept 0x0")),
    ]  # fmt: skip
    for name, source, lines, expected in sourced:
        yield Case(name, source, code(*lines), expected)


FIELD_UNKNOWN = 0xC0000C00 << 32
CONFIG_FLAGS, NOTIFY = 0x1110000300000016, 0x9100000000000010


def leaf_cases() -> Iterator[Case]:
    """The other leaves."""
    area = str(0x310000)
    leaves: list[Leaf] = [
        ("TDG.VP.INFO", 1, (), 0), ("TDG.VP.INFO version 1", 1 << 16 | 1, (), INVALID),
        ("TDG.MR.RTMR.EXTEND", 2, (area, "3"), 0),
        ("TDG.MR.RTMR.EXTEND unaligned", 2, (f"{area} + 32",), INVALID | 1),
        ("TDG.MR.RTMR.EXTEND index", 2, (area, "4"), INVALID | 2),
        ("TDG.VP.VEINFO.GET", 3, (), 0xC0000704 << 32),
        ("TDG.MR.REPORT", 4, (area, f"{area} + 1024"), 0),
        ("TDG.MR.REPORT report", 4, (f"{area} + 512", f"{area} + 1024"), INVALID | 1),
        ("TDG.MR.REPORT data", 4, (area, f"{area} + 32"), INVALID | 2),
        ("TDG.MR.REPORT subtype", 4, (area, f"{area} + 1024", "1"), INVALID | 8),
        ("TDG.VM.RD", 7, ("0", f"{CONFIG_FLAGS}"), 0),
        ("TDG.VM.RD field", 7, ("0", "0x1234"), FIELD_UNKNOWN),
        ("TDG.VM.WR", 8, ("0", f"{NOTIFY}"), 0),
        ("TDG.VM.WR field", 8, ("0", "0x1234"), FIELD_UNKNOWN),
        ("no such leaf", 0x1FF, (), INVALID), ("reserved leaf", 5, (), INVALID),
    ]  # fmt: skip
    for name, leaf, operands, status in leaves:
        yield Case(
            name, f"ABI {name}", tdcall(leaf, *operands), (f"tdcall {leaf & 0xFFFF} {status:#x}",)
        )
    yield Case(
        "TDG.VP.VMCALL RCX", "ABI TDG.VP.VMCALL: RAX, RCX and RSP are not passed",
        code("movl $0x10000, %r11d", tdcall(0, "0xffcd")), (f"vmcall 0x10000 {INVALID | 1:#x}",),
    )  # fmt: skip


def vmcall_cases() -> Iterator[Case]:
    """The functions of the VMM."""
    bad = f"{BAD_OPERAND:#x}"
    quote = code(map_gpa(1), vmcall(0x10002, f"({{gpa}} + {SHARED_BIT})", "4096"))
    calls: list[tuple[str, str, Words]] = [
        ("HLT", vmcall(12), ()), ("IO read", vmcall(30, "1", "0", "0x80"), ()),
        ("CPUID", vmcall(10, "0x40000000"), ("vmcall 0xa 0x0",)),
        ("IO size", vmcall(30, "3"), (f"vmcall 0x1e {bad}",)),
        ("IO direction", vmcall(30, "1", "2"), (f"vmcall 0x1e {bad}",)),
        ("IO port", vmcall(30, "1", "0", "0x10000"), (f"vmcall 0x1e {bad}",)),
        ("RDMSR", vmcall(31, "0x10"), (f"vmcall 0x1f {bad}",)),
        ("GetTdVmCallInfo", vmcall(0x10000), ("vmcall 0x10000 0x0",)),
        ("GetQuote", quote, ("convert 0", "vmcall 0x10002 0x0")),
        ("GetQuote private", vmcall(0x10002, "{gpa}", "4096"), (f"vmcall 0x10002 {bad}",)),
        ("SetupEventNotifyInterrupt", vmcall(0x10004, "32"), ("vmcall 0x10004 0x0",)),
        ("SetupEventNotifyInterrupt 31", vmcall(0x10004, "31"), (f"vmcall 0x10004 {bad}",)),
        ("no such function", vmcall(0x1FFFF), (f"vmcall 0x1ffff {bad}",)),
        ("MapGPA unaligned", map_gpa(1, "({gpa} + 8)"), (f"refused {BAD_ALIGNMENT:#x}",)),
        ("MapGPA size", map_gpa(1, size=100), (f"refused {BAD_ALIGNMENT:#x}",)),
        ("MapGPA of nothing", map_gpa(1, size=0), (f"refused {bad}",)),
        ("MapGPA beyond", map_gpa(0, f"{(1 << 52) - PAGE}", 2 * PAGE), (f"refused {bad}",)),
    ]  # fmt: skip
    for name, lines, expected in calls:
        yield Case(f"VMCALL {name}", f"GHCI {name.split()[0]}", lines, expected)


CASES = (
    *flush_cases(),
    *translation_cases(),
    *accept_cases(),
    *access_cases(),
    *leaf_cases(),
    *vmcall_cases(),
)
