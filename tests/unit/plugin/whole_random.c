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
#include "whole.h"

enum { VCPUS = 2, PAGES = 3 };

/* Mapping 0 is the direct map's, which is global; mapping 1 is not. Both begin as private. */
#define SECOND (256 * GIB)

static uint64_t address(unsigned mapping, unsigned page)
{
    return at(mapping * SECOND + SMALL + page * PAGE_BYTES);
}

static void step(char letter, unsigned v, const unsigned *n)
{
    uint64_t gpa = SMALL + n[0] * PAGE_BYTES;

    switch (letter) {
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

static void sequence(char *line)
{
    guest_prepare(5);
    for (unsigned page = 0; page < PAGES; page++) {
        guest_map(address(1, page), SMALL + page * PAGE_BYTES, 0, 0);
    }
    guest_boot(VCPUS, NULL);
    for (char *word = strtok(line, ";\n"); word; word = strtok(NULL, ";\n")) {
        unsigned v, n[4] = {0};
        char letter;

        if (sscanf(word, " %c %u %u %u %u %u", &letter, &v, n, n + 1, n + 2, n + 3) < 2) {
            abort();
        }
        step(letter, v, n);
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
