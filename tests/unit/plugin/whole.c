/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs every test in a child of its own. With arguments it runs random sequences instead: those of
 * a file's number, `fast FIRST SEQUENCES LENGTH LETTER`, or it prints `steps NUMBER LENGTH`.
 */
#include "whole.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct {
    const char *name;
    void (*test)(void);
} tests[200];
static size_t test_count;

void whole_add(const char *name, void (*test)(void))
{
    if (test_count == sizeof(tests) / sizeof(tests[0])) {
        abort();
    }
    tests[test_count].name = name;
    tests[test_count++].test = test;
}

/* "NAME: ok" or what the test had to say, line by line. */
static void run(const char *name, void (*test)(void))
{
    int ends[2], status;
    char line[1000];
    FILE *words;

    fflush(stdout);
    if (pipe(ends)) {
        abort();
    }
    if (!fork()) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        test();
        exit(0);
    }
    close(ends[1]);
    words = fdopen(ends[0], "r");
    while (fgets(line, sizeof(line), words)) {
        printf("%s: %s", name, line);
    }
    fclose(words);
    wait(&status);
    printf("%s: %s\n", name, status ? "failed" : "ok");
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "fast")) {
        return whole_fast(strtoull(argv[2], NULL, 10), atoi(argv[3]), atoi(argv[4]), *argv[5]);
    }
    if (argc == 4 && !strcmp(argv[1], "steps")) {
        return whole_steps(strtoull(argv[2], NULL, 10), atoi(argv[3]));
    }
    if (argc > 1) {
        return whole_random(atoi(argv[1]));
    }
    for (size_t i = 0; i < test_count; i++) {
        run(tests[i].name, tests[i].test);
    }
    return 0;
}
