// matmul 64x16, a inner, c inner, 1576 x 768 x 4
// out[b] = f(a[b] × c[b]), in tiles of 64 × 16, one tile for each
// workgroup.
struct Sizes {
  m: u32,
  n: u32,
  k: u32,
  chunk: u32,
  chunks: u32,
  tiles_m: u32,
  tiles_n: u32,
  groups: u32,
  batches: u32,
  batch1: u32,
  batch2: u32,
  a_offset: u32,
  a_batch0: u32,
  a_batch1: u32,
  a_batch2: u32,
  a_outer: u32,
  a_inner: u32,
  c_offset: u32,
  c_batch0: u32,
  c_batch1: u32,
  c_batch2: u32,
  c_outer: u32,
  c_inner: u32,
}
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

// What a workgroup makes: a tile of one product, over one chunk of the inner axis.
struct Tile {
  a_start: u32, // where the operands and the result of its batch begin
  c_start: u32,
  out_start: u32,
  first: u32, // the chunk, in fours of the inner axis
  end: u32,
  row: u32, // the tile's corner
  col: u32,
}

fn tile_of(group: vec3u, groups: vec3u) -> Tile {
  // Beyond the last tile it is made again: a branch here would make every load slow on a software
  // GPU.
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  let tiles = sizes.tiles_m * sizes.tiles_n;
  let tile = at % tiles;
  let chunk = at / tiles % sizes.chunks;
  let batch = at / tiles / sizes.chunks;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let first = chunk * sizes.chunk;
  return Tile(
    sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2,
    sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2,
    (chunk * sizes.batches + batch) * sizes.m * sizes.n,
    first,
    min(first + sizes.chunk, (sizes.k + 3u) / 4u),
    // Down the columns first: a tile of a processor has more of them than rows, and they stay in
    // its cache.
    tile % sizes.tiles_m * 64u,
    tile / sizes.tiles_m * 16u,
  );
}

// The f-th row of a tile whose first is `corner`. Beyond the last row it is that one again, or
// where rows come in fours, one of the last four.
fn row_at(corner: u32, f: u32) -> u32 {
  return min(corner + f, sizes.m - 1u);
}

// The f-th column of a tile, likewise.
fn col_at(corner: u32, f: u32) -> u32 {
  return min(corner + f / 4u * 4u, sizes.n - 4u) + f % 4u;
}

// Where row `row` of a begins, in the units of its binding: vec4, or single elements where it lies
// in no fours.
fn base_a(start: u32, row: u32) -> u32 {
  return (start + row * sizes.a_outer) / 4u;
}

fn base_c(start: u32, col: u32) -> u32 {
  return (start + col * sizes.c_outer) / 4u;
}

// The element of a at `at`, or the four of that vec4.
fn read_a(at: u32) -> vec4f {
  return a[at];
}

fn read_c(at: u32) -> vec4f {
  return c[at];
}

// Four elements of a row of a along the inner axis, from 4 k on; where a lies in fours of rows,
// the k-th elements of four rows.
fn load_a(base: u32, k: u32) -> vec4f {
  return read_a(base + k);
}

// Four elements of a column of c along the inner axis, from 4 k on; where c lies in fours of
// columns, the k-th elements of four columns.
fn load_c(base: u32, k: u32) -> vec4f {
  return read_c(base + k);
}

// Stores what becomes of an element of the product, or of four; `column` is that of its binding, as
// `at` is.
fn store(at: u32, column: u32, x: vec4f) {
  out[at] = x;
}

// The numbers of 16 steps along the inner axis, in vec4 of rows or columns. A step is a vec4
// longer than it need be: the invocations that fill the memory would else meet in the same banks.
var<workgroup> a_tile: array<vec4f, 272>;
var<workgroup> c_tile: array<vec4f, 80>;

// Fills the u-th block of a's memory: four steps of four rows, from step 4 k of the inner axis on.
fn stage_a(u: u32, k: u32, end: u32, start: u32, corner: u32) {
  // Neighbouring invocations read along the axis that lies in vec4.
  let step = u % 4u;
  let quad = u / 4u;
  let base0 = base_a(start, row_at(corner, 4u * quad + 0u));
  let w0 = select(vec4f(), load_a(base0, k + step), k + step < end);
  let base1 = base_a(start, row_at(corner, 4u * quad + 1u));
  let w1 = select(vec4f(), load_a(base1, k + step), k + step < end);
  let base2 = base_a(start, row_at(corner, 4u * quad + 2u));
  let w2 = select(vec4f(), load_a(base2, k + step), k + step < end);
  let base3 = base_a(start, row_at(corner, 4u * quad + 3u));
  let w3 = select(vec4f(), load_a(base3, k + step), k + step < end);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  a_tile[(4u * step + 0u) * 17u + quad] = v0;
  a_tile[(4u * step + 1u) * 17u + quad] = v1;
  a_tile[(4u * step + 2u) * 17u + quad] = v2;
  a_tile[(4u * step + 3u) * 17u + quad] = v3;
}

// Fills the u-th block of c's memory: four steps of four columns, from step 4 k of the inner axis
// on.
fn stage_c(u: u32, k: u32, end: u32, start: u32, corner: u32) {
  // Neighbouring invocations read along the axis that lies in vec4.
  let step = u % 4u;
  let quad = u / 4u;
  let base0 = base_c(start, col_at(corner, 4u * quad + 0u));
  let w0 = select(vec4f(), load_c(base0, k + step), k + step < end);
  let base1 = base_c(start, col_at(corner, 4u * quad + 1u));
  let w1 = select(vec4f(), load_c(base1, k + step), k + step < end);
  let base2 = base_c(start, col_at(corner, 4u * quad + 2u));
  let w2 = select(vec4f(), load_c(base2, k + step), k + step < end);
  let base3 = base_c(start, col_at(corner, 4u * quad + 3u));
  let w3 = select(vec4f(), load_c(base3, k + step), k + step < end);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  c_tile[(4u * step + 0u) * 5u + quad] = v0;
  c_tile[(4u * step + 1u) * 5u + quad] = v1;
  c_tile[(4u * step + 2u) * 5u + quad] = v2;
  c_tile[(4u * step + 3u) * 5u + quad] = v3;
}

// The invocations load together what any of them needs, and share it through workgroup memory.
@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = tile_of(group, groups);
  let across = index % 4u;
  let down = index / 4u;
  let row0 = row_at(tile.row, 4u * (down + 0u) + 0u);
  let row1 = row_at(tile.row, 4u * (down + 0u) + 1u);
  let row2 = row_at(tile.row, 4u * (down + 0u) + 2u);
  let row3 = row_at(tile.row, 4u * (down + 0u) + 3u);
  let col0 = col_at(tile.col, 4u * (across + 0u) + 0u);
  let col1 = col_at(tile.col, 4u * (across + 0u) + 1u);
  let col2 = col_at(tile.col, 4u * (across + 0u) + 2u);
  let col3 = col_at(tile.col, 4u * (across + 0u) + 3u);

  // Each accumulator has a name: an array that a loop indexes stays in memory on a software GPU, at
  // half the speed.
  var sum0_0 = vec4f();
  var sum1_0 = vec4f();
  var sum2_0 = vec4f();
  var sum3_0 = vec4f();

  for (var k = tile.first; k < tile.end; k += 4u) {
    workgroupBarrier();
    for (var u = index; u < 64u; u += 64u) {
      stage_a(u, k, tile.end, tile.a_start, tile.row);
    }
    for (var u = index; u < 16u; u += 64u) {
      stage_c(u, k, tile.end, tile.c_start, tile.col);
    }
    workgroupBarrier();
    for (var step = 0u; step < 16u; step += 4u) {
      let a0_0 = a_tile[(step + 0u) * 17u + down + 0u];
      let a1_0 = a_tile[(step + 1u) * 17u + down + 0u];
      let a2_0 = a_tile[(step + 2u) * 17u + down + 0u];
      let a3_0 = a_tile[(step + 3u) * 17u + down + 0u];
      let c0_0 = c_tile[(step + 0u) * 5u + across + 0u];
      let c1_0 = c_tile[(step + 1u) * 5u + across + 0u];
      let c2_0 = c_tile[(step + 2u) * 5u + across + 0u];
      let c3_0 = c_tile[(step + 3u) * 5u + across + 0u];
      sum0_0 = fma(vec4f(a3_0[0]), c3_0,
        fma(vec4f(a2_0[0]), c2_0,
        fma(vec4f(a1_0[0]), c1_0,
        fma(vec4f(a0_0[0]), c0_0, sum0_0))));
      sum1_0 = fma(vec4f(a3_0[1]), c3_0,
        fma(vec4f(a2_0[1]), c2_0,
        fma(vec4f(a1_0[1]), c1_0,
        fma(vec4f(a0_0[1]), c0_0, sum1_0))));
      sum2_0 = fma(vec4f(a3_0[2]), c3_0,
        fma(vec4f(a2_0[2]), c2_0,
        fma(vec4f(a1_0[2]), c1_0,
        fma(vec4f(a0_0[2]), c0_0, sum2_0))));
      sum3_0 = fma(vec4f(a3_0[3]), c3_0,
        fma(vec4f(a2_0[3]), c2_0,
        fma(vec4f(a1_0[3]), c1_0,
        fma(vec4f(a0_0[3]), c0_0, sum3_0))));
    }
  }

  // What a GPU stores twice, it waits for twice.
  if (
    tile.row + 4u * (down + 0u) + 0u < sizes.m &&
    tile.col + 4u * (across + 0u) < sizes.n
  ) {
    let at = (tile.out_start + row0 * sizes.n + col0) / 4u;
    store(at, col0 / 4u, sum0_0);
  }
  // What a GPU stores twice, it waits for twice.
  if (
    tile.row + 4u * (down + 0u) + 1u < sizes.m &&
    tile.col + 4u * (across + 0u) < sizes.n
  ) {
    let at = (tile.out_start + row1 * sizes.n + col0) / 4u;
    store(at, col0 / 4u, sum1_0);
  }
  // What a GPU stores twice, it waits for twice.
  if (
    tile.row + 4u * (down + 0u) + 2u < sizes.m &&
    tile.col + 4u * (across + 0u) < sizes.n
  ) {
    let at = (tile.out_start + row2 * sizes.n + col0) / 4u;
    store(at, col0 / 4u, sum2_0);
  }
  // What a GPU stores twice, it waits for twice.
  if (
    tile.row + 4u * (down + 0u) + 3u < sizes.m &&
    tile.col + 4u * (across + 0u) < sizes.n
  ) {
    let at = (tile.out_start + row3 * sizes.n + col0) / 4u;
    store(at, col0 / 4u, sum3_0);
  }
}
