#include MATMUL

// The numbers of ${DEPTH} steps along the inner axis, in vec4 of rows or columns. A step is a vec4
// longer than it need be: the invocations that fill the memory would else meet in the same banks.
var<workgroup> a_tile: array<vec4f, ${DEPTH * (A_QUADS + 1)}>;
var<workgroup> c_tile: array<vec4f, ${DEPTH * (C_QUADS + 1)}>;

// Fills the u-th block of a's memory: four steps of four rows, from step 4 k of the inner axis on.
fn stage_a(u: u32, k: u32, end: u32, start: u32, corner: u32) {
  // Neighbouring invocations read along the axis that lies in vec4.
  #if A_OUTER
  let step = u / ${A_QUADS}u;
  let quad = u % ${A_QUADS}u;
  let base = base_a(start, row_at(corner, 4u * quad));
  #for l in 4
  let v${l} = select(vec4f(), load_a(base, 4u * (k + step) + ${l}u), k + step < end);
  #end
  #else
  let step = u % ${DEPTH / 4}u;
  let quad = u / ${DEPTH / 4}u;
  #for h in 4
  let base${h} = base_a(start, row_at(corner, 4u * quad + ${h}u));
  let w${h} = select(vec4f(), load_a(base${h}, k + step), k + step < end);
  #end
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  #end
  #for l in 4
  a_tile[(4u * step + ${l}u) * ${A_QUADS + 1}u + quad] = v${l};
  #end
}

// Fills the u-th block of c's memory: four steps of four columns, from step 4 k of the inner axis
// on.
fn stage_c(u: u32, k: u32, end: u32, start: u32, corner: u32) {
  // Neighbouring invocations read along the axis that lies in vec4.
  #if C_OUTER
  let step = u / ${C_QUADS}u;
  let quad = u % ${C_QUADS}u;
  let base = base_c(start, col_at(corner, 4u * quad));
  #for l in 4
  let v${l} = select(vec4f(), load_c(base, 4u * (k + step) + ${l}u), k + step < end);
  #end
  #else
  let step = u % ${DEPTH / 4}u;
  let quad = u / ${DEPTH / 4}u;
  #for h in 4
  let base${h} = base_c(start, col_at(corner, 4u * quad + ${h}u));
  let w${h} = select(vec4f(), load_c(base${h}, k + step), k + step < end);
  #end
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  #end
  #for l in 4
  c_tile[(4u * step + ${l}u) * ${C_QUADS + 1}u + quad] = v${l};
  #end
}

// The invocations load together what any of them needs, and share it through workgroup memory.
@compute @workgroup_size(${ACROSS * DOWN})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = tile_of(group, groups);
  let across = index % ${ACROSS}u;
  let down = index / ${ACROSS}u;
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

  for (var k = tile.first; k < tile.end; k += ${DEPTH / 4}u) {
    workgroupBarrier();
    for (var u = index; u < ${A_QUADS * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
      stage_a(u, k, tile.end, tile.a_start, tile.row);
    }
    for (var u = index; u < ${C_QUADS * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
      stage_c(u, k, tile.end, tile.c_start, tile.col);
    }
    workgroupBarrier();
    for (var step = 0u; step < ${DEPTH}u; step += 4u) {
      #for l in 4
      #for q in ROWS / 4
      let a${l}_${q} = a_tile[(step + ${l}u) * ${A_QUADS + 1}u + down + ${q * DOWN}u];
      #end
      #end
      #for l in 4
      #for q in COLS / 4
      let c${l}_${q} = c_tile[(step + ${l}u) * ${C_QUADS + 1}u + across + ${q * ACROSS}u];
      #end
      #end
      #for q in COLS / 4
      #for i in ROWS
      sum${i}_${q} = fma(vec4f(a3_${i / 4}[${i % 4}]), c3_${q},
        fma(vec4f(a2_${i / 4}[${i % 4}]), c2_${q},
        fma(vec4f(a1_${i / 4}[${i % 4}]), c1_${q},
        fma(vec4f(a0_${i / 4}[${i % 4}]), c0_${q}, sum${i}_${q}))));
      #end
      #end
    }
  }

  #include LOW_RANK
  #include STORE
}
