/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stream.h"

#include <string.h>

_Static_assert(sizeof(EventRecord) == 64, "events.py reads 64-byte records");
_Static_assert(sizeof(EventHeader) == 64, "events.py reads a 64-byte header");

/* The CRC-32 of IEEE 802.3, as zlib.crc32() in Python computes it. */
uint32_t crc32_update(uint32_t crc, const void *data, size_t length)
{
    static uint32_t table[256];
    const uint8_t *bytes = data;

    if (!table[1]) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;

            for (int bit = 0; bit < 8; bit++) {
                c = c & 1 ? 0xedb88320u ^ c >> 1 : c >> 1;
            }
            table[i] = c;
        }
    }
    crc = ~crc;
    for (size_t i = 0; i < length; i++) {
        crc = table[(crc ^ bytes[i]) & 0xff] ^ crc >> 8;
    }
    return ~crc;
}

bool stream_open(Stream *s, const char *path, const EventHeader *header)
{
    *s = (Stream){.file = fopen(path, "wb")};
    if (!s->file) {
        return false;
    }
    fwrite(header, sizeof(*header), 1, s->file);
    return fflush(s->file) == 0;
}

static void write_record(Stream *s, const EventRecord *record)
{
    /* A full disk must not pass for a whole stream: no trailer will follow. */
    s->failed |= fwrite(record, sizeof(*record), 1, s->file) != 1;
}

uint64_t stream_put(Stream *s, EventRecord *record)
{
    /* Some ways of ending QEMU leave vCPUs running behind the last callback. */
    if (!s->file || s->muted) {
        return s->next_seq;
    }
    record->seq = s->next_seq++;
    s->crc = crc32_update(s->crc, record, sizeof(*record));
    write_record(s, record);
    return record->seq;
}

void stream_put_stack(Stream *s, uint16_t vcpu, const uint64_t *words, size_t count)
{
    for (size_t i = 0; i < count; i += 5) {
        EventRecord record = {.kind = EV_STACK, .vcpu = vcpu};
        size_t n = count - i < 5 ? count - i : 5;

        memcpy(record.arg, words + i, n * sizeof(words[0]));
        stream_put(s, &record);
    }
}

void stream_flush(Stream *s)
{
    s->failed |= fflush(s->file) != 0;
}

void stream_close(Stream *s)
{
    EventRecord trailer = {.seq = s->next_seq, .kind = EV_TRAILER, .arg = {s->next_seq, s->crc}};

    stream_flush(s);
    if (!s->failed) {
        write_record(s, &trailer);
    }
    fclose(s->file);
    s->file = NULL;
}
