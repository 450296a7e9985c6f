/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The writer: numbering, stacks, checksum, and no trailer after a failed write.
 */
#include <string.h>

#include "check.h"
#include "stream.h"

static void whole_stream(void)
{
    EventHeader header = {.magic = EVENT_MAGIC, .version = EVENT_VERSION};
    EventRecord record = {.kind = EV_CONVERT}, back[4];
    uint64_t words[6] = {1, 2, 3, 4, 5, 6};
    Stream s;
    FILE *file;

    CHECK_EQ(stream_open(&s, "/tmp/events", &header), 1);
    CHECK_EQ(stream_put(&s, &record), 0);
    stream_put_stack(&s, 3, words, 6);
    stream_close(&s);
    file = fopen("/tmp/events", "rb");
    CHECK_EQ(fseek(file, sizeof(header), SEEK_SET), 0);
    CHECK_EQ(fread(back, sizeof(back[0]), 4, file), 4);
    CHECK_EQ(fgetc(file), EOF);
    fclose(file);
    CHECK_EQ(back[1].kind, EV_STACK);
    CHECK_EQ(back[1].vcpu, 3);
    CHECK_EQ(back[1].arg[4], 5);
    CHECK_EQ(back[2].arg[0], 6);
    CHECK_EQ(back[2].arg[1], 0);
    CHECK_EQ(back[3].kind, EV_TRAILER);
    CHECK_EQ(back[3].seq, 3);
    CHECK_EQ(back[3].arg[0], 3);
    CHECK_EQ(back[3].arg[1], crc32_update(0, back, 3 * sizeof(back[0])));
}

static void a_full_disk_leaves_no_trailer(void)
{
    EventHeader header = {.magic = EVENT_MAGIC, .version = EVENT_VERSION};
    EventRecord record = {.kind = EV_CONVERT};
    Stream s;

    /* Opening flushes the header, which a full device refuses at once. */
    CHECK_EQ(stream_open(&s, "/dev/full", &header), 0);
    fclose(s.file);
    CHECK_EQ(stream_open(&s, "/tmp/events", &header), 1);
    s.file = freopen("/dev/full", "wb", s.file);
    stream_put(&s, &record);
    stream_flush(&s);
    CHECK_EQ(s.failed, 1);
    stream_close(&s);
    CHECK_EQ(stream_open(&s, "/no such directory/events", &header), 0);
}

int main(void)
{
    /* The check value of CRC-32/ISO-HDLC. */
    CHECK_EQ(crc32_update(0, "123456789", 9), 0xcbf43926);
    CHECK_EQ(crc32_update(crc32_update(0, "12345", 5), "6789", 4), 0xcbf43926);
    whole_stream();
    a_full_disk_leaves_no_trailer();
    return 0;
}
