// out[b] = f(a[b] × c[b]), in tiles of ${ROWS * DOWN} × ${COLS * ACROSS}, one tile for each
// workgroup.

${EPILOGUE}

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
    tile % sizes.tiles_m * ${ROWS * DOWN}u,
    tile / sizes.tiles_m * ${COLS * ACROSS}u,
  );
}

// The f-th row of a tile whose first is `corner`. Beyond the last row it is that one again, or
// where rows come in fours, one of the last four.
fn row_at(corner: u32, f: u32) -> u32 {
  #if A_OUTER
  return min(corner + f / 4u * 4u, sizes.m - 4u) + f % 4u;
  #else
  return min(corner + f, sizes.m - 1u);
  #end
}

// The f-th column of a tile, likewise.
fn col_at(corner: u32, f: u32) -> u32 {
  #if QUADS
  return min(corner + f / 4u * 4u, sizes.n - 4u) + f % 4u;
  #else
  return min(corner + f, sizes.n - 1u);
  #end
}

#if MASKED
// What dropout multiplies the i-th element with. With items, elements are
// counted from where their item begins in the larger batch.
fn mask1(i: u32) -> f32 {
  #if ITEMS
  let element = items[i / sizes.item] * sizes.pitch + i % sizes.item;
  #else
  let element = i;
  #end
  return select(0.0, sizes.gain, hash3_(vec3u(element, sizes.stream, sizes.seed)).x >= sizes.below);
}

fn mask4(i: u32) -> vec4f {
  return vec4f(mask1(i), mask1(i + 1u), mask1(i + 2u), mask1(i + 3u));
}

#end
// Where row `row` of a begins, in the units of its binding: vec4, or single elements where it lies
// in no fours.
fn base_a(start: u32, row: u32) -> u32 {
  #if A_INNER
  return (start + row * sizes.a_outer) / 4u;
  #end
  #if A_OUTER
  return (start + row) / 4u;
  #end
  #if A_ANY
  return start + row * sizes.a_outer;
  #end
}

fn base_c(start: u32, col: u32) -> u32 {
  #if C_INNER
  return (start + col * sizes.c_outer) / 4u;
  #end
  #if C_OUTER
  return (start + col) / 4u;
  #end
  #if C_ANY
  return start + col * sizes.c_outer;
  #end
}

// The element of a at `at`, or the four of that vec4.
fn read_a(at: u32) -> ${A_TYPE} {
  return ${A_VALUE};
}

fn read_c(at: u32) -> ${C_TYPE} {
  return ${C_VALUE};
}

// Four elements of a row of a along the inner axis, from 4 k on; where a lies in fours of rows,
// the k-th elements of four rows.
fn load_a(base: u32, k: u32) -> vec4f {
  #if A_INNER
  return read_a(base + k);
  #end
  #if A_OUTER
  let four = read_a(base + k * (sizes.a_inner / 4u));
  #if RAGGED
  return select(vec4f(), four, k < sizes.k);
  #else
  return four;
  #end
  #end
  #if A_ANY
  let i = 4u * k;
  #if RAGGED
  return vec4f(
    select(0.0, read_a(base + (i + 0u) * sizes.a_inner), i < sizes.k),
    select(0.0, read_a(base + (i + 1u) * sizes.a_inner), i + 1u < sizes.k),
    select(0.0, read_a(base + (i + 2u) * sizes.a_inner), i + 2u < sizes.k),
    select(0.0, read_a(base + (i + 3u) * sizes.a_inner), i + 3u < sizes.k),
  );
  #else
  return vec4f(
    read_a(base + (i + 0u) * sizes.a_inner),
    read_a(base + (i + 1u) * sizes.a_inner),
    read_a(base + (i + 2u) * sizes.a_inner),
    read_a(base + (i + 3u) * sizes.a_inner),
  );
  #end
  #end
}

// Four elements of a column of c along the inner axis, from 4 k on; where c lies in fours of
// columns, the k-th elements of four columns.
fn load_c(base: u32, k: u32) -> vec4f {
  #if C_INNER
  return read_c(base + k);
  #end
  #if C_OUTER
  let four = read_c(base + k * (sizes.c_inner / 4u));
  #if RAGGED
  return select(vec4f(), four, k < sizes.k);
  #else
  return four;
  #end
  #end
  #if C_ANY
  let i = 4u * k;
  #if RAGGED
  return vec4f(
    select(0.0, read_c(base + (i + 0u) * sizes.c_inner), i < sizes.k),
    select(0.0, read_c(base + (i + 1u) * sizes.c_inner), i + 1u < sizes.k),
    select(0.0, read_c(base + (i + 2u) * sizes.c_inner), i + 2u < sizes.k),
    select(0.0, read_c(base + (i + 3u) * sizes.c_inner), i + 3u < sizes.k),
  );
  #else
  return vec4f(
    read_c(base + (i + 0u) * sizes.c_inner),
    read_c(base + (i + 1u) * sizes.c_inner),
    read_c(base + (i + 2u) * sizes.c_inner),
    read_c(base + (i + 3u) * sizes.c_inner),
  );
  #end
  #end
}

// Stores what becomes of an element of the product, or of four; `column` is that of its binding, as
// `at` is.
fn store(at: u32, column: u32, x: ${RESULT}) {
  #for name in VECTORS
  let ${name} = ${name}_in[column];
  #end
  #for name in MATRICES
  let ${name} = ${name}_in[at];
  #end
  #if SAVES
  saved[at] = ${SAVED};
  #end
  out[at] = ${VALUE};
}
