/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A firmware of 64 KiB that is the whole guest: it enters long mode and calls the cases, one after
 * the other, each between two marks and on a page of its own; then it ends QEMU. Assembled behind
 * the definitions and cases that harness/testing/tiny.py writes.
 *
 * Memory: [0, 1 GiB) is mapped to itself by 2 MiB leaves, for stack and tables. From HIGH on the same
 * again, as kernels have it: global, private, 2 MiB leaves; the window [4 MiB, 6 MiB) by 4 KiB leaves,
 * and twice more: at NONGLOBAL private and not global, at SHARED shared and not global.
 */
        .equ PML4, 0x200000
        .equ LOW_PDPT, 0x201000
        .equ LOW_PD, 0x202000
        .equ HIGH_PDPT, 0x203000
        .equ HIGH_PD, 0x204000
        .equ STACK, 0x300000
        .equ LINK, 0x3
        .equ LEAF, 0x3
        .equ LARGE, 0x83
        .equ GLOBAL, 0x100
        .equ EFER, 0xc0000080
        .equ EFER_LME, 1 << 8
        .equ CR4_PAE_PGE, 0xa0
        .equ ROM, 0xf0000

        .section .text
        .code16
start16:
        cli
        lgdtl   %cs:gdtr - ROM
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $8, $start32

        .code32
start32:
        movw    $16, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        cld
        movl    $PML4, %edi
        xorl    %eax, %eax
        movl    $0x8000 / 4, %ecx
        rep stosl
        movl    $LOW_PDPT | LINK, PML4
        movl    $HIGH_PDPT | LINK, PML4 + 256 * 8
        movl    $LOW_PD | LINK, LOW_PDPT
        movl    $HIGH_PD | LINK, HIGH_PDPT
        xorl    %ecx, %ecx
1:      movl    %ecx, %eax
        shll    $21, %eax
        orl     $LARGE, %eax
        movl    %eax, LOW_PD(, %ecx, 8)
        orl     $GLOBAL, %eax
        movl    %eax, HIGH_PD(, %ecx, 8)
        incl    %ecx
        cmpl    $512, %ecx
        jb      1b
        movl    $WINDOW_PT | LINK, HIGH_PD + 2 * 8
        movl    $NONGLOBAL_PT | LINK, HIGH_PD + 32 * 8
        movl    $SHARED_PT | LINK, HIGH_PD + 33 * 8
        xorl    %ecx, %ecx
1:      movl    %ecx, %eax
        shll    $12, %eax
        orl     $WINDOW | LEAF, %eax
        movl    %eax, NONGLOBAL_PT(, %ecx, 8)
        movl    %eax, SHARED_PT(, %ecx, 8)
        movl    $1 << (52 - 32), SHARED_PT + 4(, %ecx, 8)
        orl     $GLOBAL, %eax
        movl    %eax, WINDOW_PT(, %ecx, 8)
        incl    %ecx
        cmpl    $512, %ecx
        jb      1b
        movl    $CR4_PAE_PGE, %eax
        movl    %eax, %cr4
        movl    $PML4, %eax
        movl    %eax, %cr3
        movl    $EFER, %ecx
        rdmsr
        orl     $EFER_LME, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $1 << 31, %eax
        movl    %eax, %cr0
        ljmpl   $24, $start64

        .code64
start64:
        movl    $STACK, %esp
        xorl    %ebx, %ebx
        /* From the first access to the upper half on the vCPU counts. */
        movabsq $HIGH + 0x400000, %rax
        movq    (%rax), %rax
next:   movl    $1, %eax
        call    mark
        leaq    cases(%rip), %rax
        movl    (%rax, %rbx, 4), %eax
        pushq   %rbx
        call    *%rax
        popq    %rbx
        movl    $2, %eax
        call    mark
        /* What a case leaves behind is no business of the next. */
        wbinvd
        movl    $CR4_PAE_PGE & ~0x80, %eax
        movq    %rax, %cr4
        movl    $CR4_PAE_PGE, %eax
        movq    %rax, %cr4
        incl    %ebx
        cmpl    $CASES, %ebx
        jb      next
        movb    $EXIT_CODE, %al
        outb    %al, $0xf4
1:      hlt
        jmp     1b

/* TDG.VP.VMCALL of the stub's own: what in EAX, number in EBX. */
mark:   movl    %eax, %r11d
        movl    %ebx, %r12d
        movl    $0x544448, %r10d
        xorl    %r13d, %r13d
vmcall: movl    $0xffcc, %ecx
        xorl    %eax, %eax
        tdcall
        ret

        .balign 8
gdt:    .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdtr:   .word . - gdt - 1
        .long gdt

        .balign 16
        .include "cases.inc"

        .org 0xfff0
        .code16
        .byte 0xe9      /* jmp start16 */
        .word start16 - . - 2
        .org 0xffff
        .byte 0
