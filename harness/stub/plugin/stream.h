/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The writer of the event stream; the records are in events.h. Callers hold the stub's lock. */
#ifndef TDH_STREAM_H
#define TDH_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "events.h"

typedef struct Stream {
    FILE *file;
    uint64_t next_seq;
    uint32_t crc;
    bool failed;
    bool muted; /* what comes now is not recorded */
} Stream;

/* False when the file cannot be written; errno says why. */
bool stream_open(Stream *s, const char *path, const EventHeader *header);
/* Sets the record's sequence number and returns it. */
uint64_t stream_put(Stream *s, EventRecord *record);
/* Up to `count` words that look like return addresses, as EV_STACK records. */
void stream_put_stack(Stream *s, uint16_t vcpu, const uint64_t *words, size_t count);
/* What was put is in the file from here on, whatever happens to QEMU. */
void stream_flush(Stream *s);
/* Writes the trailer; without it the stream counts as cut. */
void stream_close(Stream *s);

uint32_t crc32_update(uint32_t crc, const void *data, size_t length);

#endif
