// ${SUM} of attention: a workgroup has ${ROWS * DOWN} rows of the score matrix, and goes over its
// columns in blocks of ${4 * ACROSS}. It makes the block's scores, a product; turns them into
// weights, which go to workgroup memory; and adds the weights' product with the block to the
// result.

${SPECIAL}

const LOWEST = -3.402823466e38; // no finite score is lower

// What a workgroup makes: some rows of the score matrix of one head.
struct Tile {
  batch: u32, // of the batch and its heads, the how many-th
  first: u32, // the first row
}

fn tile_of(group: vec3u, groups: vec3u) -> Tile {
  // Beyond the last tile it is made again: a branch here would make every load slow on a software
  // GPU.
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  return Tile(at / sizes.tiles, at % sizes.tiles * ${ROWS * DOWN}u);
}

// The statistics belong to queries: to the rows of the score matrix, or to its columns where the
// rows are keys. The axis that has none gets 0.
fn of_row(x: f32) -> f32 {
  return select(x, 0.0, sizes.keys == 1u);
}

fn of_column(x: f32) -> f32 {
  return select(0.0, x, sizes.keys == 1u);
}
