/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TDCALLs of the guest, and the events that came of what it did. */
#include <string.h>
#include <sys/stat.h>

#include "guest.h"

enum { MOST_RECORDS = 1 << 16 };
static EventRecord records[MOST_RECORDS];
static size_t shown[MOST_RECORDS]; /* indices of records that are neither stacks nor counters */
static size_t record_count, shown_count, forgotten;

uint64_t guest_tdcall(unsigned vcpu, uint64_t leaf)
{
    static FakeInsn *insn;

    insn = insn ? insn : INSN(0x66, 0x0f, 0x01, 0xcc);
    fake_set(vcpu, RAX, leaf);
    CHECK_EQ(fake_exec(vcpu, insn), false);
    CHECK_EQ(fake_rip(vcpu), GUEST_PC + 4);
    return fake_get(vcpu, RAX);
}

uint64_t guest_vmcall(unsigned vcpu, uint64_t r10, uint64_t r11, uint64_t r12, uint64_t r13)
{
    /* TDVMCALL_EXPOSE_REGS_MASK of Linux 6.12. */
    fake_set(vcpu, RCX, 0xffcc);
    fake_set(vcpu, R10, r10);
    fake_set(vcpu, R11, r11);
    fake_set(vcpu, R12, r12);
    fake_set(vcpu, R13, r13);
    CHECK_EQ(guest_tdcall(vcpu, 0), 0);
    return fake_get(vcpu, R10);
}

uint64_t guest_map_gpa(unsigned vcpu, uint64_t gpa, uint64_t bytes, bool to_shared)
{
    return guest_vmcall(vcpu, 0, 0x10001, to_shared ? gpa | SHARED_BIT : gpa, bytes);
}

uint64_t guest_accept(unsigned vcpu, uint64_t gpa, unsigned level)
{
    fake_set(vcpu, RCX, gpa | level);
    return guest_tdcall(vcpu, 6);
}

/* Read anew what is behind forgotten records. */
static void read_events(void)
{
    FILE *file;
    struct stat status;

    fflush(NULL);
    file = fopen("/tmp/events", "rb");
    fstat(fileno(file), &status);
    record_count = (status.st_size - sizeof(EventHeader)) / sizeof(EventRecord) - forgotten;
    CHECK_EQ(record_count <= MOST_RECORDS, true);
    fseek(file, sizeof(EventHeader) + forgotten * sizeof(EventRecord), SEEK_SET);
    CHECK_EQ(fread(records, sizeof(EventRecord), record_count, file), record_count);
    fclose(file);
    shown_count = 0;
    for (size_t i = 0; i < record_count; i++) {
        CHECK_EQ(records[i].seq, forgotten + i);
        if (records[i].kind != EV_STACK && records[i].kind != EV_COUNTER) {
            shown[shown_count++] = i;
        }
    }
}

size_t guest_events(void)
{
    read_events();
    return shown_count;
}

const EventRecord *guest_event(size_t i)
{
    CHECK_EQ(i < guest_events(), true);
    return &records[shown[i]];
}

size_t guest_count(EventKind kind)
{
    size_t count = 0;

    read_events();
    for (size_t i = 0; i < shown_count; i++) {
        count += records[shown[i]].kind == kind;
    }
    return count;
}

const EventRecord *guest_last(EventKind kind)
{
    read_events();
    for (size_t i = shown_count; i-- > 0;) {
        if (records[shown[i]].kind == kind) {
            return &records[shown[i]];
        }
    }
    fprintf(stderr, "no event of kind %d\n", kind);
    exit(1);
}

size_t guest_stack_words(void)
{
    size_t words = 0;

    read_events();
    for (size_t i = record_count; i-- > 0 && records[i].kind == EV_STACK;) {
        for (int word = 0; word < 5; word++) {
            words += records[i].arg[word] != 0;
        }
    }
    return words;
}

void guest_forget(void)
{
    read_events();
    forgotten += record_count;
}

static void set_range(unsigned vcpu, uint64_t gpa, uint64_t bytes, bool shared)
{
    for (uint64_t page = gpa; page < gpa + bytes; page += PAGE_BYTES) {
        guest_set_shared(vcpu, at(page), 0, shared);
    }
}

static void invalidate_on_all(uint64_t gpa, uint64_t bytes)
{
    for (unsigned v = 0; v < guest.vcpus; v++) {
        for (uint64_t page = gpa; page < gpa + bytes; page += PAGE_BYTES) {
            guest_invlpg(v, at(page));
        }
    }
}

/* __set_memory_enc_pgtable() of Linux 6.12. */
void guest_convert(unsigned vcpu, uint64_t gpa, uint64_t bytes, bool to_shared)
{
    if (to_shared) {
        invalidate_on_all(gpa, bytes);
        guest_clflush_range(vcpu, at(gpa), bytes);
    } else {
        CHECK_EQ(guest_map_gpa(vcpu, gpa, bytes, false), 0);
        for (uint64_t page = gpa; page < gpa + bytes; page += PAGE_BYTES) {
            CHECK_EQ(guest_accept(vcpu, page, 0), 0);
        }
    }
    set_range(vcpu, gpa, bytes, to_shared);
    invalidate_on_all(gpa, bytes);
    if (to_shared) {
        CHECK_EQ(guest_map_gpa(vcpu, gpa, bytes, true), 0);
    }
}

uint64_t guest_dirty(uint64_t gpa, bool to_shared)
{
    uint64_t mask = 0, lines = 0;

    guest_forget();
    CHECK_EQ(guest_map_gpa(0, gpa, PAGE_BYTES, to_shared), 0);
    for (size_t i = 0; i < guest_events(); i++) {
        const EventRecord *record = guest_event(i);

        if (record->kind == EV_DIRTY_RUN) {
            CHECK_EQ(record->arg[0] / PAGE_BYTES, gpa / PAGE_BYTES);
            for (uint64_t line = 0; line < record->arg[1]; line++, lines++) {
                mask |= 1ull << (record->arg[0] % PAGE_BYTES / LINE_BYTES + line);
            }
        }
    }
    CHECK_EQ(guest_last(EV_CONVERT)->arg[3], lines);
    return mask;
}
