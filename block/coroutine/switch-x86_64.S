/* SPDX-License-Identifier: MIT */

/*
 * The switch for x86-64, System V ABI.
 *
 * A suspended stack looks so, its stack pointer being what *save holds:
 *
 *      0  r15  r14  r13  r12  rbx  rbp
 *     48  return address
 *
 * The last jump is an indirect jump and not a ret: the processor predicts a ret by the calls it saw,
 * and here the matching call was made on another stack, so that each ret would be mispredicted.
 * Only a coroutine that ends without having yielded leaves by ret: then the calls do match.
 *
 * MXCSR and the x87 control word stay as they are: they are the thread's, a coroutine never leaves its
 * thread, and yields with what it was entered with (see co_yield()). To read MXCSR at each switch would
 * double its cost.
 *
 * No shadow stack: this object carries no CET mark, so the linker switches it off for the program.
 */

    .text

    .macro SAVE to
    pushq   %rbp
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbp, 0
    pushq   %rbx
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset rbx, 0
    pushq   %r12
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r12, 0
    pushq   %r13
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r13, 0
    pushq   %r14
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r14, 0
    pushq   %r15
    .cfi_adjust_cfa_offset 8
    .cfi_rel_offset r15, 0
    movq    %rsp, (\to)
    .endm

    .macro RESTORE
    popq    %r15
    .cfi_adjust_cfa_offset -8
    .cfi_restore r15
    popq    %r14
    .cfi_adjust_cfa_offset -8
    .cfi_restore r14
    popq    %r13
    .cfi_adjust_cfa_offset -8
    .cfi_restore r13
    popq    %r12
    .cfi_adjust_cfa_offset -8
    .cfi_restore r12
    popq    %rbx
    .cfi_adjust_cfa_offset -8
    .cfi_restore rbx
    popq    %rbp
    .cfi_adjust_cfa_offset -8
    .cfi_restore rbp
    .endm

/* void co_switch(void **save [rdi], void *load [rsi]) */
    .globl  co_switch
    .hidden co_switch
    .type   co_switch, @function
    .p2align 6
co_switch:
    .cfi_startproc
    SAVE    %rdi
    movq    %rsi, %rsp      /* the same frame on the other stack: the CFI stays true */
    RESTORE
    popq    %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register rip, rcx
    jmp     *%rcx
    .cfi_endproc
    .size   co_switch, . - co_switch

/* void co_switch_first(void **save [rdi], void *stack_top [rsi], Coroutine *co [rdx]) */
    .globl  co_switch_first
    .hidden co_switch_first
    .type   co_switch_first, @function
    .p2align 6
co_switch_first:
    .cfi_startproc
    SAVE    %rdi
    movq    %rdx, %rbx
    jmp     co_base
    .cfi_endproc
    .size   co_switch_first, . - co_switch_first

/*
 * The outermost frame of each coroutine. Its caller is who entered the coroutine last: the frame that
 * SAVE or co_switch() left at co->caller_sp (co in rbx, offset 16). Marked as a signal frame so that
 * a debugger does not insist on callers being at higher addresses.
 */
    .type   co_base, @function
    .p2align 4
co_base:
    .cfi_startproc
    .cfi_signal_frame
    /* CFA = *(rbx + 16) + 56: DW_CFA_def_cfa_expression, 5 bytes: breg3 16, deref, plus_uconst 56 */
    .cfi_escape 0x0f, 5, 0x73, 16, 0x06, 0x23, 56
    .cfi_offset rip, -8
    .cfi_offset rbp, -16
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    movq    %rsi, %rsp
    xorl    %ebp, %ebp
    movq    %rdx, %rdi
    call    co_main
    movq    8(%rbx), %rdx   /* co->sp: still NULL if it never yielded */
    .cfi_endproc
    .size   co_base, . - co_base

    /* back on the stack of who entered: an ordinary frame again */
    .type   co_leave, @function
co_leave:
    .cfi_startproc
    .cfi_def_cfa rax, 56
    .cfi_offset rip, -8
    .cfi_offset rbp, -16
    .cfi_offset rbx, -24
    .cfi_offset r12, -32
    .cfi_offset r13, -40
    .cfi_offset r14, -48
    .cfi_offset r15, -56
    movq    %rax, %rsp
    .cfi_def_cfa rsp, 56
    RESTORE
    testq   %rdx, %rdx
    jne     1f
    ret
1:  popq    %rcx
    .cfi_adjust_cfa_offset -8
    .cfi_register rip, rcx
    jmp     *%rcx
    .cfi_endproc
    .size   co_leave, . - co_leave

    .section .note.GNU-stack, "", @progbits
