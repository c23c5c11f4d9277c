//! Small kernels run whole.

mod attention;
mod fp8;
mod maps;
mod matrices;
mod rows;
mod widen;

use super::{Fault, FaultKind, Launch};
use crate::{
    device::memory::{BASE, Memory},
    ptx::{self, code::Kernel},
};

const INPUT: u64 = BASE + 0x1000;
const OUTPUT: u64 = BASE + 0x9000;

/// A kernel with a pointer to read, a pointer to write and a number: `%rd1`, `%rd2` and `%r1`; `%r2` is the thread's number
/// in the grid, `%rd3` and `%rd4` the addresses of its own 32-bit number in both.
fn kernel(body: &str) -> Kernel {
    let text = format!(
        ".version 8.0\n.target sm_80\n.visible .entry k(.param .u64 in, .param .u64 out, .param .u32 n) {{
        .reg .pred %p<9>; .reg .b32 %r<30>; .reg .f32 %f<9>; .reg .b64 %rd<9>;
        .shared .align 4 .b8 tile[4096];
        ld.param.u64 %rd1, [in]; ld.param.u64 %rd2, [out]; ld.param.u32 %r1, [n];
        mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mov.u32 %r5, %tid.x;
        mad.lo.s32 %r2, %r3, %r4, %r5;
        mul.wide.u32 %rd5, %r2, 4; add.s64 %rd3, %rd1, %rd5; add.s64 %rd4, %rd2, %rd5;
        {body} }}"
    );
    let module = ptx::parse(&text).unwrap();
    ptx::lower(&module, "k", &ptx::Globals::new()).unwrap()
}

fn run_seeded(body: &str, blocks: u32, threads: u32, n: u32, seed: u64) -> Result<Vec<u32>, Fault> {
    let mut memory = Memory::new(false);
    let count = (blocks * threads) as usize;
    memory.allocate(INPUT, 4 * count);
    memory.allocate(OUTPUT, 4 * count);
    let numbers: Vec<u8> = (0..count as u32).flat_map(|i| (i * 3 + 1).to_le_bytes()).collect();
    memory.upload(INPUT, &numbers)?;
    let kernel = kernel(body);
    let parameters = [&INPUT.to_le_bytes()[..], &OUTPUT.to_le_bytes(), &n.to_le_bytes()].concat();
    let launch = Launch {
        kernel: &kernel,
        grid: [blocks, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared: 0,
        parameters: &parameters,
        seed,
    };
    launch.run(&memory)?;
    let bytes = memory.slice(OUTPUT, 4 * count)?;
    Ok(bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect())
}

fn run(body: &str, blocks: u32, threads: u32, n: u32) -> Result<Vec<u32>, Fault> {
    run_seeded(body, blocks, threads, n, 0)
}

#[test]
fn every_thread_of_every_block_writes_its_number() {
    let out = run("ld.global.u32 %r6, [%rd3]; add.s32 %r6, %r6, %r1; st.global.u32 [%rd4], %r6; ret;", 40, 70, 5);
    assert_eq!(out.unwrap(), (0..2800).map(|i| i * 3 + 6).collect::<Vec<_>>());
}

#[test]
fn paths_part_and_meet_again() {
    // Each thread counts as often as its number says; odd ones add a hundred on a path of their own.
    let body = "
        mov.u32 %r6, 0; and.b32 %r7, %r2, 1; setp.eq.s32 %p1, %r7, 1;
        loop: setp.ge.u32 %p2, %r6, %r2; @%p2 bra done; add.s32 %r6, %r6, 1; bra loop;
        done: @!%p1 bra even; add.s32 %r6, %r6, 100;
        even: shfl.sync.bfly.b32 %r8|%p3, %r6, 1, 31, -1;
        st.global.u32 [%rd4], %r8; ret;";
    let out = run(body, 1, 64, 0).unwrap();
    assert!(out.iter().enumerate().all(|(i, value)| *value == (i as u32 ^ 1) + if i & 1 == 0 { 100 } else { 0 }));
}

#[test]
fn a_path_that_comes_back_to_where_another_waits_is_met() {
    // What compilers do with an unlikely branch: it stands behind the end, and jumps back to the very instruction that
    // exchanges values.
    let body = "
        mov.u32 %r6, %r2; and.b32 %r7, %r2, 1; setp.eq.s32 %p1, %r7, 1; @%p1 bra odd;
        meet: shfl.sync.bfly.b32 %r8|%p3, %r6, 1, 31, -1; st.global.u32 [%rd4], %r8; ret;
        odd: add.s32 %r6, %r6, 100; bra meet;";
    let out = run(body, 1, 32, 0).unwrap();
    assert!(out.iter().enumerate().all(|(i, value)| *value == (i as u32 ^ 1) + if i & 1 == 0 { 100 } else { 0 }));
}

#[test]
fn lanes_shuffle_within_their_segment() {
    for (mode, b, c, want) in [
        ("up", 1, 0, [1u32, 1, 4]),
        ("down", 1, 31, [4, 7, 10]),
        ("idx", 5, 31, [16, 16, 16]),
        // Segments of eight lanes.
        ("idx", 1, 0x181f, [4, 4, 4]),
        ("bfly", 2, 31, [7, 10, 1]),
    ] {
        let body = format!(
            "ld.global.u32 %r6, [%rd3]; shfl.sync.{mode}.b32 %r7|%p1, %r6, {b}, {c}, -1; st.global.u32 [%rd4], %r7; ret;"
        );
        assert_eq!(run(&body, 1, 32, 0).unwrap()[..3], want, "{mode} {b} {c}");
    }
}

#[test]
fn a_block_meets_at_its_barrier_in_any_order_of_warps() {
    // Each thread reads what the thread at the other end of the block wrote.
    let body = "
        ld.global.u32 %r6, [%rd3]; mov.u32 %r9, tile; shl.b32 %r7, %r5, 2; add.s32 %r7, %r9, %r7; st.shared.u32 [%r7], %r6;
        bar.sync 0;
        sub.s32 %r8, %r4, %r5; add.s32 %r8, %r8, -1; shl.b32 %r8, %r8, 2; add.s32 %r8, %r9, %r8;
        ld.shared.u32 %r6, [%r8]; st.global.u32 [%rd4], %r6; ret;";
    for seed in 0..6 {
        let out = run_seeded(body, 1, 128, 0, seed).unwrap();
        assert_eq!(out, (0..128).map(|i| (127 - i) * 3 + 1).collect::<Vec<_>>());
    }
    // Without the barrier, what another warp writes may not be there yet.
    let fault = run(&body.replace("bar.sync 0;", ""), 1, 128, 0).unwrap_err();
    assert_eq!(fault.kind, FaultKind::Uninitialised);
}

#[test]
fn votes_count_the_lanes_that_hold() {
    let body = "setp.lt.u32 %p1, %r5, 4; vote.sync.ballot.b32 %r6, %p1, -1; activemask.b32 %r7; and.b32 %r6, %r6, %r7; st.global.u32 [%rd4], %r6; ret;";
    assert_eq!(run(body, 1, 32, 0).unwrap(), [0xf; 32]);
    // Each half of a warp among itself, in one instruction.
    let body =
        "setp.lt.u32 %p1, %r5, 16; selp.b32 %r6, 0xffff, 0xffff0000, %p1; and.b32 %r7, %r5, 1; setp.eq.s32 %p2, %r7, 0;
        vote.sync.ballot.b32 %r8, %p2, %r6; st.global.u32 [%rd4], %r8; ret;";
    let out = run(body, 1, 32, 0).unwrap();
    assert_eq!((out[3], out[20]), (0x5555, 0x5555_0000));
}

#[test]
fn registers_may_hold_more_than_an_instruction_takes() {
    // -1 by the sign of what was loaded, in a comparison of 32 bits; and what is added to a wide product has 64.
    let body = "
        st.global.u32 [%rd4], -1; ld.global.s32 %r6, [%rd4]; atom.global.cas.b32 %r7, [%rd4], %r6, 5;
        ld.global.u32 %r8, [%rd4]; mad.wide.s32 %rd6, %r5, 4, -2; shr.s64 %rd6, %rd6, 1; cvt.u32.u64 %r9, %rd6;
        add.s32 %r8, %r8, %r9; st.global.u32 [%rd4], %r8; ret;";
    assert_eq!(run(body, 1, 3, 0).unwrap(), [4, 6, 8]);
    for wide in ["ld.global.b128 %rd6, [%rd3]", "mov.b128 {%rd6, %rd7}, %rd5", "mov.b128 %rd5, {%rd6, %rd7}"] {
        let fault = run(&format!("{wide}; ret;"), 1, 1, 0).unwrap_err();
        assert!(fault.message.contains("b128") && fault.kind == FaultKind::Instruction, "{fault}");
    }
}

#[test]
fn atomic_sums_see_every_thread() {
    let body = "mov.u32 %r6, 0; setp.ne.s32 %p1, %r2, 0; st.global.u32 [%rd4], %r6; bar.sync 0; atom.global.add.u32 %r7, [%rd2], 2; ret;";
    assert_eq!(run(body, 1, 256, 0).unwrap()[0], 512);
}

#[test]
fn calls_stand_in_their_callers_place() {
    let text = ".version 8.0\n.target sm_80
        .func (.param .b32 back) half(.param .b32 whole) {
            .reg .b32 %r<4>; .reg .pred %p<2>;
            ld.param.b32 %r1, [whole]; shr.u32 %r2, %r1, 1; setp.eq.s32 %p1, %r2, 0; @%p1 bra zero;
            st.param.b32 [back+0], %r2; ret;
            zero: st.param.b32 [back+0], 77; ret;
        }
        .visible .entry k(.param .u64 out) {
            .reg .b32 %r<9>; .reg .b64 %rd<9>; .reg .pred %p<3>;
            ld.param.u64 %rd1, [out]; mov.u32 %r1, %tid.x; mul.wide.u32 %rd2, %r1, 4; add.s64 %rd3, %rd1, %rd2;
            { .param .b32 param0; st.param.b32 [param0+0], %r1; .param .b32 retval0;
              call.uni (retval0), half, (param0); ld.param.b32 %r2, [retval0+0]; }
            { .param .b32 param0; st.param.b32 [param0+0], %r2; .param .b32 retval0;
              call.uni (retval0), half, (param0); ld.param.b32 %r3, [retval0+0]; }
            st.global.u32 [%rd3], %r3; ret;
        }";
    let module = ptx::parse(text).unwrap();
    let kernel = ptx::lower(&module, "k", &ptx::Globals::new()).unwrap();
    let mut memory = Memory::new(false);
    memory.allocate(OUTPUT, 64);
    let parameters = OUTPUT.to_le_bytes();
    let launch = Launch {
        kernel: &kernel,
        grid: [1; 3],
        block: [16, 1, 1],
        dynamic_shared: 0,
        parameters: &parameters,
        seed: 0,
    };
    launch.run(&memory).unwrap();
    let twice = |i: u32| {
        let half = |x: u32| if x / 2 == 0 { 77 } else { x / 2 };
        half(half(i))
    };
    let want: Vec<u8> = (0..16).flat_map(|i| twice(i).to_le_bytes()).collect();
    assert_eq!(memory.slice(OUTPUT, 64).unwrap(), want);
}

#[test]
fn vectors_halves_and_local_memory() {
    let body = "
        .local .align 8 .b8 stack[16];
        mov.b64 %rd6, {%r2, %r5}; mov.b64 {%r6, %r7}, %rd6;
        mov.u64 %rd7, stack; cvta.local.u64 %rd7, %rd7; st.v2.u32 [%rd7], {%r6, %r1}; ld.local.v2.u32 {%r8, %r9}, [stack];
        add.s32 %r8, %r8, %r9; st.global.u32 [%rd4], %r8; ret;";
    assert_eq!(run(body, 1, 3, 10).unwrap(), [10, 11, 12]);
}

#[test]
fn what_a_launch_gives_lies_apart_from_what_the_kernel_declares() {
    let run = |last: &str| {
        let text = format!(
            ".version 8.0\n.target sm_80\n.extern .shared .align 16 .b8 given[];
            .visible .entry k(.param .u64 out) {{
                .reg .b32 %r<9>; .reg .b64 %rd<9>; .shared .align 4 .b8 own[4];
                ld.param.u64 %rd1, [out]; st.shared.u32 [given], 10; st.shared.u32 [own], 1;
                ld.shared.u32 %r1, [given]; ld.shared.u32 %r2, [{last}];
                add.s32 %r3, %r1, %r2; st.global.u32 [%rd1], %r3; ret;
            }}"
        );
        let kernel = ptx::lower(&ptx::parse(&text).unwrap(), "k", &ptx::Globals::new()).unwrap();
        let mut memory = Memory::new(false);
        memory.allocate(OUTPUT, 4);
        let parameters = OUTPUT.to_le_bytes();
        let (grid, block) = ([1; 3], [1; 3]);
        let launch = Launch { kernel: &kernel, grid, block, dynamic_shared: 4, parameters: &parameters, seed: 0 };
        launch.run(&memory)?;
        memory.slice(OUTPUT, 4).map(<[u8]>::to_vec)
    };
    assert_eq!(run("own").unwrap(), 11u32.to_le_bytes());
    assert_eq!(run("given+4").unwrap_err().kind, FaultKind::IllegalAddress);
    // Nothing lies behind what the kernel declares but the rest of 16 bytes.
    assert_eq!(run("own+16").unwrap_err().kind, FaultKind::IllegalAddress);
}

#[test]
fn what_a_card_would_not_allow_is_named() {
    let kinds = [
        ("ld.global.u32 %r6, [%rd3+4096]; st.global.u32 [%rd4], %r6; ret;", FaultKind::IllegalAddress),
        ("st.global.u32 [%rd4+2], %r1; ret;", FaultKind::Misaligned),
        ("ld.global.u32 %r6, [%rd4]; st.global.u32 [%rd4], %r6; ret;", FaultKind::Uninitialised),
        (
            "setp.eq.s32 %p1, %r5, 0; @%p1 bra out; bar.sync 0; out: shfl.sync.bfly.b32 %r6, %r5, 1, 31, -1; ret;",
            FaultKind::Deadlock,
        ),
        ("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f2}; ret;", FaultKind::Instruction),
        ("ld.shared.u32 %r6, [tile+4096]; ret;", FaultKind::IllegalAddress),
    ];
    for (body, kind) in kinds {
        let fault = run(body, 1, 32, 0).unwrap_err();
        assert_eq!(fault.kind, kind, "{fault}");
        assert!(fault.message.contains("kernel k"), "{fault}");
    }
    let fault = run("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f1}, {%r1}, {%r2}, {%f2}; ret;", 1, 32, 0)
        .unwrap_err();
    assert!(fault.message.contains("mma.sync.aligned.m16n8k8"), "{fault}");
}

#[test]
fn a_sample_counts_what_all_blocks_would_take() {
    let mut memory = Memory::new(false);
    memory.allocate(INPUT, 0x4000);
    memory.allocate(OUTPUT, 0x4000);
    memory.upload(INPUT, &[1; 0x4000]).unwrap();
    let kernel = kernel("ld.global.u32 %r6, [%rd3]; st.global.u32 [%rd4], %r6; ret;");
    let parameters = [&INPUT.to_le_bytes()[..], &OUTPUT.to_le_bytes(), &[0; 4]].concat();
    let launch = Launch {
        kernel: &kernel,
        grid: [128, 1, 1],
        block: [32, 1, 1],
        dynamic_shared: 0,
        parameters: &parameters,
        seed: 0,
    };
    let (sample, _) = launch.sample(&memory).unwrap();
    assert_eq!(sample, launch.run(&memory).unwrap());
    assert_eq!((sample.read, sample.written), (0x4000, 0x4000));
    let over = Launch { grid: [129, 1, 1], ..launch };
    assert_eq!(over.sample(&memory).unwrap_err().kind, FaultKind::IllegalAddress);
}
