// values[r, :] and indices[r, :] are the k largest of x[r, :], in descending order, the first of equal ones first; one
// invocation for each row. With SMALLEST the k smallest, in ascending order.
override SMALLEST: bool;
override FLOAT: bool; // else integers
override SIGNED: bool; // of integers

@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> values: array<u32>;
@group(0) @binding(2) var<storage, read_write> indices: array<i32>;

// The bits of a value, turned so that their order as u32 is that of the values: exact for every dtype. NaN comes first,
// in both directions.
fn key(bits: u32) -> u32 {
  var order = bits;
  if (FLOAT) {
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
      return 0xffffffffu;
    }
    let negative = bits >> 31u == 1u && bits != 0x80000000u; // -0 is 0
    order = select(bits | 0x80000000u, ~bits, negative);
  } else if (SIGNED) {
    order = bits ^ 0x80000000u;
  }
  return select(order, ~order, SMALLEST);
}

// What was taken last, and the best seen so far of what comes after it: smaller, or equal and further on.
var<private> last: u32;
var<private> last_col: u32;
var<private> best: u32;
var<private> best_col: u32;

fn consider(start: u32, col: u32, rank: u32) {
  if (col >= sizes.cols) {
    return;
  }
  let candidate = key(x[start + col]);
  let left = rank == 0u || candidate < last || (candidate == last && col > last_col);
  if (left && (best_col == sizes.cols || candidate > best)) {
    best = candidate;
    best_col = col;
  }
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let row = id.y * groups.x * 64u + id.x;
  if (row >= sizes.rows) {
    return;
  }
  let start = row * sizes.cols;
  for (var rank = 0u; rank < sizes.k; rank++) {
    best_col = sizes.cols;
    // Eight at once: a software adapter allows an invocation few steps.
    for (var col = 0u; col < sizes.cols; col += 8u) {
      consider(start, col, rank);
      consider(start, col + 1u, rank);
      consider(start, col + 2u, rank);
      consider(start, col + 3u, rank);
      consider(start, col + 4u, rank);
      consider(start, col + 5u, rank);
      consider(start, col + 6u, rank);
      consider(start, col + 7u, rank);
    }
    last = best;
    last_col = best_col;
    values[row * sizes.k + rank] = x[start + best_col];
    indices[row * sizes.k + rank] = i32(best_col);
  }
}
