/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs sequences that tests/unit/test_plugin_whole.py makes up. One line is one sequence: steps of
 * a letter and numbers, each with a semicolon behind it. The answer is one line: the event stream
 * in hex, or "failed". The steps are those of harness/testing/reference.py.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"
#include "naive.h"
#include "random.h"
#include "whole.h"

static uint64_t address(unsigned mapping, unsigned page)
{
    return at(mapping * SECOND + SMALL + page * PAGE_BYTES);
}

static bool is_mapped(unsigned mapping, unsigned page)
{
    return guest_entry(guest_slot(address(mapping, page), 0)) & PTE_PRESENT;
}

/* What touches a page that is not mapped faults, and no callback comes. */
static bool faults(const Step *s)
{
    const unsigned *n = s->n;
    unsigned last = n[1];

    if (s->letter == 'S' || s->letter == 'L') {
        last += (n[2] + n[3] - 1) / PAGE_BYTES;
    } else if (s->letter != 'F' && s->letter != 'W') {
        return false;
    }
    return !is_mapped(n[0], n[1]) || !is_mapped(n[0], last);
}

static void halt(unsigned v)
{
    static FakeInsn *hlt;

    hlt = hlt ? hlt : INSN(0xf4);
    CHECK_EQ(fake_exec(v, hlt), true);
}

/* INIT and SIPI, and the way back to long mode. */
static void restart(unsigned v)
{
    static const uint8_t cli[1][FAKE_INSN_BYTES] = {{0xfa}};
    static const size_t length = 1;
    static FakeInsn *first, *mov_to_cr0;
    uint64_t cr0 = fake_get(v, REG_CR0), cr4 = fake_get(v, REG_CR4);

    first = first ? first : &fake_translate(0x9a000, 1, cli, &length)->insn[0];
    mov_to_cr0 = mov_to_cr0 ? mov_to_cr0 : INSN(0x0f, 0x22, 0xc0);
    fake_set(v, REG_CR0, 0x60000010);
    fake_set(v, REG_CR4, 0);
    CHECK_EQ(fake_exec(v, first), true);
    guest_write_cr3(v, guest.root);
    guest_write_cr4(v, cr4);
    fake_set(v, RAX, cr0);
    CHECK_EQ(fake_exec(v, mov_to_cr0), true);
    fake_set(v, REG_CR0, cr0);
    guest_come_online(v);
}

void random_step(const Step *s)
{
    const unsigned *n = s->n;
    uint64_t gpa = SMALL + n[0] * PAGE_BYTES;
    unsigned v = s->vcpu;

    if (faults(s)) {
        return;
    }
    switch (s->letter) {
    case 'S': /* mapping, page, offset, bytes */
        guest_store(v, address(n[0], n[1]) + n[2], n[3]);
        break;
    case 'L':
        guest_load(v, address(n[0], n[1]) + n[2], n[3]);
        break;
    case 'F': /* mapping, page, line */
        guest_clflush(v, address(n[0], n[1]) + n[2] * LINE_BYTES);
        break;
    case 'W':
        guest_clwb(v, address(n[0], n[1]) + n[2] * LINE_BYTES);
        break;
    case 'B':
        guest_wbinvd(v);
        break;
    case 'P': /* mapping, page, shared */
        guest_set_shared(v, address(n[0], n[1]), 0, n[2]);
        break;
    case 'N': /* mapping, page */
        guest_unmap(v, address(n[0], n[1]), 0);
        break;
    case 'H':
        halt(v);
        break;
    case 'R':
        restart(v);
        break;
    case 'I': /* mapping, page */
        guest_invlpg(v, address(n[0], n[1]));
        break;
    case 'C':
        guest_write_cr3(v, guest.root);
        break;
    case 'G':
        guest_flush_global(v);
        break;
    case 'M': /* page, pages, shared */
        guest_map_gpa(v, gpa, n[1] * PAGE_BYTES, n[2]);
        break;
    case 'A': /* page, level */
        guest_accept(v, gpa, n[1]);
        break;
    default:
        abort();
    }
}

void random_start(void)
{
    guest_prepare(5);
    for (unsigned page = 0; page < NAIVE_PAGES; page++) {
        guest_map(address(1, page), SMALL + page * PAGE_BYTES, 0, 0);
    }
    guest_boot(NAIVE_VCPUS, NULL);
}

static void sequence(char *line)
{
    random_start();
    for (char *word = strtok(line, ";\n"); word; word = strtok(NULL, ";\n")) {
        Step s = {0};
        unsigned *n = s.n;

        if (sscanf(word, " %c %u %u %u %u %u", &s.letter, &s.vcpu, n, n + 1, n + 2, n + 3) < 2) {
            abort();
        }
        random_step(&s);
    }
    fake_exit();
}

static void answer(bool failed)
{
    FILE *file = failed ? NULL : fopen("/tmp/events", "rb");
    int byte;

    while (file && (byte = fgetc(file)) != EOF) {
        printf("%02x", byte);
    }
    if (file) {
        fclose(file);
    }
    puts(failed ? "failed" : "");
    fflush(stdout);
}

int whole_random(int fd)
{
    FILE *lines = fdopen(fd, "r");
    size_t room = 0;
    char *line = NULL;
    int status;

    while (getline(&line, &room, lines) > 0) {
        if (!fork()) {
            sequence(line);
            /* Without the search for leaks, which takes longer than all else. */
            _exit(0);
        }
        wait(&status);
        answer(status != 0);
    }
    free(line);
    fclose(lines);
    return 0;
}
