/* SPDX-License-Identifier: MIT */

/*
 * The switch for aarch64, AAPCS64. See switch-x86_64.S for the ideas.
 *
 * A suspended stack looks so, its stack pointer being what *save holds:
 *
 *      0  x29  x30 (where it continues)
 *     16  x19 .. x28
 *     96  d8 .. d15 (of v8 .. v15 only these halves belong to the callee)
 *
 * x18 is the platform's, FPCR the thread's.
 */

#define FRAME 160

    .text

    .macro SAVE to
    stp     x29, x30, [sp, #-FRAME]!
    .cfi_adjust_cfa_offset FRAME
    .cfi_rel_offset x29, 0
    .cfi_rel_offset x30, 8
    stp     x19, x20, [sp, #16]
    .cfi_rel_offset x19, 16
    .cfi_rel_offset x20, 24
    stp     x21, x22, [sp, #32]
    .cfi_rel_offset x21, 32
    .cfi_rel_offset x22, 40
    stp     x23, x24, [sp, #48]
    .cfi_rel_offset x23, 48
    .cfi_rel_offset x24, 56
    stp     x25, x26, [sp, #64]
    .cfi_rel_offset x25, 64
    .cfi_rel_offset x26, 72
    stp     x27, x28, [sp, #80]
    .cfi_rel_offset x27, 80
    .cfi_rel_offset x28, 88
    stp     d8, d9, [sp, #96]
    .cfi_rel_offset d8, 96
    .cfi_rel_offset d9, 104
    stp     d10, d11, [sp, #112]
    .cfi_rel_offset d10, 112
    .cfi_rel_offset d11, 120
    stp     d12, d13, [sp, #128]
    .cfi_rel_offset d12, 128
    .cfi_rel_offset d13, 136
    stp     d14, d15, [sp, #144]
    .cfi_rel_offset d14, 144
    .cfi_rel_offset d15, 152
    mov     x10, sp
    str     x10, [\to]
    .endm

    /* Leaves x30: where to continue. */
    .macro RESTORE
    ldp     d14, d15, [sp, #144]
    ldp     d12, d13, [sp, #128]
    ldp     d10, d11, [sp, #112]
    ldp     d8, d9, [sp, #96]
    ldp     x27, x28, [sp, #80]
    ldp     x25, x26, [sp, #64]
    ldp     x23, x24, [sp, #48]
    ldp     x21, x22, [sp, #32]
    ldp     x19, x20, [sp, #16]
    ldp     x29, x30, [sp], #FRAME
    .cfi_adjust_cfa_offset -FRAME
    .cfi_restore x29
    .cfi_restore x30
    .cfi_restore x19
    .cfi_restore x20
    .cfi_restore x21
    .cfi_restore x22
    .cfi_restore x23
    .cfi_restore x24
    .cfi_restore x25
    .cfi_restore x26
    .cfi_restore x27
    .cfi_restore x28
    .cfi_restore d8
    .cfi_restore d9
    .cfi_restore d10
    .cfi_restore d11
    .cfi_restore d12
    .cfi_restore d13
    .cfi_restore d14
    .cfi_restore d15
    .endm

    /* the registers as SAVE left them, the CFA being FRAME above */
    .macro SAVED_CFI
    .cfi_offset x29, -160
    .cfi_offset x30, -152
    .cfi_offset x19, -144
    .cfi_offset x20, -136
    .cfi_offset x21, -128
    .cfi_offset x22, -120
    .cfi_offset x23, -112
    .cfi_offset x24, -104
    .cfi_offset x25, -96
    .cfi_offset x26, -88
    .cfi_offset x27, -80
    .cfi_offset x28, -72
    .cfi_offset d8, -64
    .cfi_offset d9, -56
    .cfi_offset d10, -48
    .cfi_offset d11, -40
    .cfi_offset d12, -32
    .cfi_offset d13, -24
    .cfi_offset d14, -16
    .cfi_offset d15, -8
    .endm

/* void co_switch(void **save [x0], void *load [x1]) */
    .globl  co_switch
    .hidden co_switch
    .type   co_switch, %function
    .p2align 6
co_switch:
    .cfi_startproc
    SAVE    x0
    mov     sp, x1          /* the same frame on the other stack: the CFI stays true */
    RESTORE
    br      x30             /* not ret: see switch-x86_64.S */
    .cfi_endproc
    .size   co_switch, . - co_switch

/* void co_switch_first(void **save [x0], void *stack_top [x1], Coroutine *co [x2]) */
    .globl  co_switch_first
    .hidden co_switch_first
    .type   co_switch_first, %function
    .p2align 6
co_switch_first:
    .cfi_startproc
    SAVE    x0
    mov     x19, x2
    b       co_base
    .cfi_endproc
    .size   co_switch_first, . - co_switch_first

/*
 * The outermost frame of each coroutine. Its caller is who entered the coroutine last: the frame at
 * co->caller_sp (co in x19, offset 16).
 */
    .type   co_base, %function
    .p2align 4
co_base:
    .cfi_startproc
    .cfi_signal_frame
    /* CFA = *(x19 + 16) + 160: DW_CFA_def_cfa_expression, 6 bytes: breg19 16, deref, plus_uconst 160 */
    .cfi_escape 0x0f, 6, 0x83, 16, 0x06, 0x23, 0xa0, 0x01
    SAVED_CFI
    mov     sp, x1
    mov     x29, xzr
    mov     x0, x2
    bl      co_main
    ldr     x11, [x19, #8]  /* co->sp: still NULL if it never yielded */
    .cfi_endproc
    .size   co_base, . - co_base

    /* back on the stack of who entered: an ordinary frame again */
    .type   co_leave, %function
co_leave:
    .cfi_startproc
    .cfi_def_cfa x0, FRAME
    SAVED_CFI
    mov     sp, x0
    .cfi_def_cfa sp, FRAME
    RESTORE
    cbnz    x11, 1f
    ret
1:  br      x30
    .cfi_endproc
    .size   co_leave, . - co_leave

    .section .note.GNU-stack, "", %progbits
