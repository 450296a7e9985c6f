/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which accesses are watched: encodings by hand from SDM volume 2. */
#include "access.h"
#include "check.h"

static const struct {
    uint8_t bytes[12];
    size_t length;
    unsigned want;
} cases[] = {
    {{0x48, 0x89, 0x07}, 3, ACCESS_STORE},                  /* mov %rax,(%rdi) */
    {{0x48, 0x8b, 0x07}, 3, ACCESS_LOAD},                   /* mov (%rdi),%rax */
    {{0x48, 0x89, 0xc7}, 3, 0},                             /* mov %rax,%rdi */
    {{0x48, 0x8d, 0x07}, 3, 0},                             /* lea */
    {{0xf0, 0x48, 0x01, 0x07}, 4, ACCESS_STORE},            /* lock add %rax,(%rdi) */
    {{0x48, 0x03, 0x07}, 3, ACCESS_LOAD},                   /* add (%rdi),%rax */
    {{0x48, 0x39, 0x07}, 3, ACCESS_LOAD},                   /* cmp %rax,(%rdi) */
    {{0x80, 0x3f, 0x00}, 3, ACCESS_LOAD},                   /* cmpb $0,(%rdi) */
    {{0x83, 0x07, 0x01}, 3, ACCESS_STORE},                  /* addl $1,(%rdi) */
    {{0xf6, 0x07, 0x01}, 3, ACCESS_LOAD},                   /* testb $1,(%rdi) */
    {{0xf7, 0x17}, 2, ACCESS_STORE},                        /* notl (%rdi) */
    {{0xf7, 0xf7}, 2, 0},                                   /* div %edi */
    {{0x55}, 1, ACCESS_STORE | ACCESS_PUSH},                /* push %rbp */
    {{0x5d}, 1, 0},                                         /* pop %rbp */
    {{0x8f, 0x07}, 2, ACCESS_ANY},                          /* pop (%rdi) */
    {{0xe8, 0, 0, 0, 0}, 5, ACCESS_STORE},                  /* call */
    {{0xff, 0x17}, 2, ACCESS_LOAD | ACCESS_STORE},          /* call *(%rdi) */
    {{0xff, 0xd7}, 2, ACCESS_STORE},                        /* call *%rdi */
    {{0xff, 0x27}, 2, ACCESS_LOAD},                         /* jmp *(%rdi) */
    {{0xff, 0x07}, 2, ACCESS_STORE},                        /* incl (%rdi) */
    {{0xff, 0x37}, 2, ACCESS_LOAD | ACCESS_STORE},          /* push (%rdi) */
    {{0xc3}, 1, 0},                                         /* ret */
    {{0xf3, 0x48, 0xab}, 3, ACCESS_STORE},                  /* rep stos */
    {{0xf3, 0x48, 0xa5}, 3, ACCESS_LOAD | ACCESS_STORE},    /* rep movs */
    {{0x0f, 0xb6, 0x07}, 3, ACCESS_LOAD},                   /* movzbl (%rdi),%eax */
    {{0xf0, 0x0f, 0xb1, 0x0f}, 4, ACCESS_STORE},            /* lock cmpxchg */
    {{0x48, 0x0f, 0xba, 0x27, 1}, 5, ACCESS_LOAD},          /* bt $1,(%rdi) */
    {{0x48, 0x0f, 0xba, 0x2f, 1}, 5, ACCESS_STORE},         /* bts $1,(%rdi) */
    {{0x48, 0x0f, 0xc3, 0x07}, 4, ACCESS_STORE},            /* movnti %rax,(%rdi) */
    {{0x0f, 0x11, 0x07}, 3, ACCESS_ANY},                    /* movups %xmm0,(%rdi) */
    {{0x48, 0x0f, 0xc7, 0x0f}, 4, ACCESS_ANY},              /* cmpxchg16b */
    {{0xc5, 0xfc, 0x11, 0x07}, 4, ACCESS_ANY},              /* vmovups */
    {{0x66, 0x0f, 0x38, 0xf8, 0x07}, 5, ACCESS_ANY},        /* movdir64b */
    {{0x74, 0x10}, 2, 0},                                   /* je */
    {{0x0f, 0x1f, 0x44, 0, 0}, 5, 0},                       /* nop */
    {{0x48, 0x8b, 0x44, 0x24, 8}, 5, 0},                    /* mov 8(%rsp),%rax */
    {{0x49, 0x8b, 0x04, 0x24}, 4, ACCESS_LOAD},             /* mov (%r12),%rax */
    {{0x48, 0x89, 0x44, 0x24, 8}, 5, ACCESS_STORE},         /* mov %rax,8(%rsp) */
    {{0xff, 0x74, 0x24, 8}, 4, ACCESS_LOAD | ACCESS_STORE}, /* push 8(%rsp) */
    {{0x41, 0x57}, 2, ACCESS_STORE | ACCESS_PUSH},          /* push %r15 */
    {{0x40}, 1, 0},                                         /* inc %eax in 32-bit code */
};

int main(void)
{
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        fprintf(stderr, "case %zu\n", i);
        CHECK_EQ(insn_access(cases[i].bytes, cases[i].length), cases[i].want);
    }
    CHECK_EQ(insn_access((const uint8_t *)"", 0), ACCESS_ANY);
    return 0;
}
