#include MATMUL

// The lanes lie along the columns and share the rows of a, or they lie along the rows and share the
// columns of c: each lane loads a share of the operand that all need, and broadcasts it.
@compute @workgroup_size(${ACROSS * DOWN})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = tile_of(group, groups);
  let across = lane % ${ACROSS}u;
  let down = lane / ${ACROSS}u;
  #for i in ROWS
  let row${i} = row_at(tile.row, 4u * (down + ${i / 4 * DOWN}u) + ${i % 4}u);
  #end
  #for j in COLS
  let col${j} = col_at(tile.col, 4u * (across + ${j / 4 * ACROSS}u) + ${j % 4}u);
  #end

  // Each accumulator has a name: an array that a loop indexes stays in memory on a software GPU, at
  // half the speed.
  #for i in ROWS
  #for q in COLS / 4
  var sum${i}_${q} = vec4f();
  #end
  #end

  #if SHARES_A
  #for r in ROUNDS
  let a_f${r} = (lane + ${r * LANES}u) % ${ROWS}u;
  #if A_OUTER
  let a_base${r} = base_a(tile.a_start, row_at(tile.row, 4u * (a_f${r} % ${ROWS / 4}u)));
  #else
  let a_base${r} = base_a(tile.a_start, row_at(tile.row, a_f${r}));
  #end
  #end
  #if C_OUTER
  #for q in COLS / 4
  let c_base${q} = base_c(tile.c_start, col${4 * q});
  #end
  #else
  #for j in COLS
  let c_base${j} = base_c(tile.c_start, col${j});
  #end
  #end
  #else
  #if A_OUTER
  #for q in ROWS / 4
  let a_base${q} = base_a(tile.a_start, row${4 * q});
  #end
  #else
  #for i in ROWS
  let a_base${i} = base_a(tile.a_start, row${i});
  #end
  #end
  #for r in ROUNDS
  let c_f${r} = (lane + ${r * LANES}u) % ${COLS}u;
  #if C_OUTER
  let c_base${r} = base_c(tile.c_start, col_at(tile.col, 4u * (c_f${r} % ${COLS / 4}u)));
  #else
  let c_base${r} = base_c(tile.c_start, col_at(tile.col, c_f${r}));
  #end
  #end
  #end

  for (var k = tile.first; k < tile.end; k++) {
    #if SHARES_A
    #for r in ROUNDS
    #if A_OUTER
    let a_mine${r} = load_a(a_base${r}, 4u * k + a_f${r} / ${ROWS / 4}u);
    #else
    let a_mine${r} = load_a(a_base${r}, k);
    #end
    #end
    #if A_OUTER
    #for i in ROWS
    let a${i / (ROWS / 4)}_${i % (ROWS / 4)} = subgroupBroadcast(a_mine${i / LANES}, ${i % LANES}u);
    #end
    #else
    #for i in ROWS
    let a_${i} = subgroupBroadcast(a_mine${i / LANES}, ${i % LANES}u);
    #end
    #end
    #if C_OUTER
    #for l in 4
    #for q in COLS / 4
    let c${l}_${q} = load_c(c_base${q}, 4u * k + ${l}u);
    #end
    #end
    #else
    #for j in COLS
    let c_${j} = load_c(c_base${j}, k);
    #end
    #end
    #else
    #if A_OUTER
    #for l in 4
    #for q in ROWS / 4
    let a${l}_${q} = load_a(a_base${q}, 4u * k + ${l}u);
    #end
    #end
    #else
    #for i in ROWS
    let a_${i} = load_a(a_base${i}, k);
    #end
    #end
    #for r in ROUNDS
    #if C_OUTER
    let c_mine${r} = load_c(c_base${r}, 4u * k + c_f${r} / ${COLS / 4}u);
    #else
    let c_mine${r} = load_c(c_base${r}, k);
    #end
    #end
    #if C_OUTER
    #for i in COLS
    let c${i / (COLS / 4)}_${i % (COLS / 4)} = subgroupBroadcast(c_mine${i / LANES}, ${i % LANES}u);
    #end
    #else
    #for j in COLS
    let c_${j} = subgroupBroadcast(c_mine${j / LANES}, ${j % LANES}u);
    #end
    #end
    #end

    // The four steps are summed first: chains of a quarter of the length round less, and the
    // operation more is done beside the loads.
    #for q in COLS / 4
    #if !C_OUTER
    let c0_${q} = vec4f(c_${4 * q}.x, c_${4 * q + 1}.x, c_${4 * q + 2}.x, c_${4 * q + 3}.x);
    let c1_${q} = vec4f(c_${4 * q}.y, c_${4 * q + 1}.y, c_${4 * q + 2}.y, c_${4 * q + 3}.y);
    let c2_${q} = vec4f(c_${4 * q}.z, c_${4 * q + 1}.z, c_${4 * q + 2}.z, c_${4 * q + 3}.z);
    let c3_${q} = vec4f(c_${4 * q}.w, c_${4 * q + 1}.w, c_${4 * q + 2}.w, c_${4 * q + 3}.w);
    #end
    #for i in ROWS
    #if A_OUTER
    sum${i}_${q} += fma(vec4f(a3_${i / 4}[${i % 4}]), c3_${q},
      fma(vec4f(a2_${i / 4}[${i % 4}]), c2_${q},
      fma(vec4f(a1_${i / 4}[${i % 4}]), c1_${q}, a0_${i / 4}[${i % 4}] * c0_${q})));
    #else
    sum${i}_${q} += fma(vec4f(a_${i}.w), c3_${q}, fma(vec4f(a_${i}.z), c2_${q},
      fma(vec4f(a_${i}.y), c1_${q}, a_${i}.x * c0_${q})));
    #end
    #end
    #end
  }

  #include LOW_RANK
  #include STORE
}
