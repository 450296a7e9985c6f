# SPDX-License-Identifier: GPL-2.0-or-later
"""Error codes of MCi_STATUS by name: the MCA code (15:0), and the model-specific one (31:16).

Intel SDM volume 3, "Interpreting the MCA Error Codes": simple codes, compound codes and their
fields, the architecturally defined SRAO and SRAR errors. Model-specific codes of the memory
controllers of Ice Lake to Emerald Rapids: SDM volume 3, "Incremental Decoding Information" for
these processors; rasdaemon has the same in events-arch-x86/mce-intel-i10nm.c.
"""

# Bit 12 of a corrected error says that alike ones are left out; it is no part of the code.
_FILTER = 1 << 12
DATA_LOAD = 0x134
INSTRUCTION_FETCH = 0x150
_L3_WRITE_BACK = 0x17A
_SCRUB, _SCRUB_MASK = 0xC0, 0xFFF0
_KNOWN = {
    0x0: "no error",
    0x1: "unclassified",
    0x2: "microcode ROM parity",
    0x3: "external error",
    0x4: "redundancy check (FRC)",
    0x5: "internal parity",
    0x6: "access of SMM code outside SMRR",
    0x400: "internal timer",
    0xE0B: "I/O error",
    DATA_LOAD: "data load",
    INSTRUCTION_FETCH: "instruction fetch",
    _L3_WRITE_BACK: "explicit write-back",
}
_LEVELS = ("L0", "L1", "L2", "generic level")
_KINDS = ("instruction", "data", "generic", "reserved type")
_REQUESTS = (
    "error", "read", "write", "data read", "data write", "instruction fetch", "prefetch",
    "eviction", "snoop",
)  # fmt: skip
_MEMORY = ("undefined request", "read", "write", "address or command", "scrub")
_ROLES = ("own request", "response", "observed as third party", "generic role")
_TARGETS = ("memory", "reserved", "I/O", "other")

# Family 6: Ice Lake SP and D, Sapphire Rapids, Emerald Rapids; banks of their memory controllers.
_ICELAKE_BANKS = frozenset({*range(13, 16), *range(17, 20), *range(21, 24), *range(25, 28)})
_RAPIDS_BANKS = frozenset(range(13, 21))
_CONTROLLERS = {
    0x6A: _ICELAKE_BANKS,
    0x6C: _ICELAKE_BANKS,
    0x8F: _RAPIDS_BANKS,
    0xCF: _RAPIDS_BANKS,
}
_MODEL = {
    0x0001: "address parity",
    0x0002: "data parity",
    0x0003: "data ECC",
    0x0008: "corrected by patrol scrub",
    0x0010: "uncorrected, found by patrol scrub",
    0x0080: "corrected read",
    0x00A0: "uncorrected read",
    0x0822: "TME_KEY_PAR_ERR",
    0x0826: "TME_TEM_SECURE_ERR",
    0x082A: "TME_INTEGRITY_ERR (integrity check)",
    0x082B: "TME_TDX_ERR (TD ownership check)",
    0x082D: "TME_KEY_POISON_ERR",
    0x082E: "TME_SECURITY_ENGINE_ERR",
}
# What a broken rule of conversion looks like to the memory controller.
_OF_TDX = frozenset({0x082A, 0x082B})


def code_of(status: int) -> int:
    """The MCA code without its filter bit."""
    return status & 0xFFFF & ~_FILTER


def model_code_of(status: int) -> int:
    """The model-specific code."""
    return status >> 16 & 0xFFFF


def action_optional(status: int) -> bool:
    """Whether the code is one of the two that the SDM defines for SRAO errors."""
    code = code_of(status)
    return code == _L3_WRITE_BACK or code & _SCRUB_MASK == _SCRUB


def is_memory(status: int) -> bool:
    """Whether the code is a memory controller's."""
    return code_of(status) & 0xFF80 == 0x80


def name(status: int) -> str:
    """The MCA code in words."""
    code = code_of(status)
    return _KNOWN.get(code) or _compound(code) or f"code {code:#x}"


def _compound(code: int) -> str:
    """The compound codes, longest fixed part last: each form has a bit above those before it."""
    level = _LEVELS[code & 3]
    kind = _KINDS[code >> 2 & 3]
    request = _REQUESTS[min(code >> 4 & 0xF, len(_REQUESTS) - 1)]
    if 0xC <= code <= 0xF:
        return f"memory hierarchy, {level}"
    if 0x10 <= code <= 0x1F:
        return f"TLB, {kind}, {level}"
    if 0x80 <= code <= 0xFF:
        return _controller("memory controller", code)
    if 0x100 <= code <= 0x1FF:
        return f"cache, {kind} {request}, {level}"
    if 0x280 <= code <= 0x2FF:
        return _controller("memory used as cache", code)
    if 0x400 <= code <= 0x7FF:
        return "internal, unclassified"
    if 0x800 <= code <= 0xFFF:
        role, target = _ROLES[code >> 9 & 3], _TARGETS[code >> 2 & 3]
        timeout = ", timeout" if code >> 8 & 1 else ""
        return f"bus, {role}, {request}, {target}, {level}{timeout}"
    return ""


def _controller(what: str, code: int) -> str:
    kind, channel = code >> 4 & 7, code & 0xF
    words = _MEMORY[kind] if kind < len(_MEMORY) else "reserved request"
    return f"{what}, {words}" + ("" if channel == 0xF else f", channel {channel}")


def model_name(status: int, bank: int, cpuid: int) -> str:
    """The model-specific code in words; "" where this CPU's banks are not known."""
    if bank not in _CONTROLLERS.get(_model_of(cpuid), ()):
        return ""
    return _MODEL.get(model_code_of(status), "")


def of_tdx(status: int, bank: int, cpuid: int) -> bool:
    """Whether a memory controller says that a check of integrity or TD ownership failed."""
    known = bank in _CONTROLLERS.get(_model_of(cpuid), ())
    return known and model_code_of(status) in _OF_TDX


def _model_of(cpuid: int) -> int:
    """The model of a CPU of family 6 by its leaf 1, EAX; -1 for others."""
    if cpuid >> 8 & 0xF != 6 or cpuid >> 20 & 0xFF:
        return -1
    return cpuid >> 12 & 0xF0 | cpuid >> 4 & 0xF
