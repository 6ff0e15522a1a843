// The frame of kernels that work on each row by itself: first a statistic of the row, then its elements. The op, whose
// WGSL comes before, says what they are:
//
//   identity_() -> vec4f                            the statistic of no elements
//   accumulate_(s, quad, row, start, end) -> vec4f    s with the elements of a quad that are in the row
//   combine_(a, b) -> vec4f                        the statistic of two parts
//   finalize_(s, row) -> vec4f                      what the elements need of it
//   write_(quad, s, row, start)                  makes the new elements of a quad
//   write_shared_(quad, s, row, start, next, end)        those of a quad that ends with elements of the next row, from `end` on
//
// A quad, E, is a vec4 along the row, or one element where WIDTH is 1. A group of rows is as many as make full quads
// together, so that no quad is written by two invocations. Rows lie one after another, or where the op's from_(row) and
// to_(row) say.
override ACROSS: u32; // invocations of a row, a power of 2
override DOWN: u32; // groups of rows of a workgroup
override GROUP: u32; // rows of a group
override GIVES: bool; // whether there are new elements
override WHOLE: bool; // whether rows begin and end with full quads

var<workgroup> parts: array<vec4f, ACROSS * DOWN>;

// Whether places are in a row.
fn inside_(at: P, start: u32, end: u32) -> B {
  if (WHOLE) {
    return B(true);
  }
  return (at >= P(start)) & (at < P(end));
}

// The statistic of a row, from its invocations' shares.
fn joined_(share: vec4f, at: vec2u) -> vec4f {
  if (ACROSS == 1u) {
    return share;
  }
  let index = at.y * ACROSS + at.x;
  parts[index] = share;
  for (var reach = ACROSS / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (at.x < reach) {
      parts[index] = combine_(parts[index], parts[index + reach]);
    }
  }
  workgroupBarrier();
  let s = parts[at.y * ACROSS];
  workgroupBarrier(); // before the next row's shares
  return s;
}

fn statistic_(row: u32, at: vec2u) -> vec4f {
  var s = identity_();
  let start = from_(row);
  // Of rows beyond the last one nothing is read.
  let end = select(start, to_(row), row < sizes.rows);
  for (var quad = start / WIDTH + at.x; quad * WIDTH < end; quad += ACROSS) {
    s = accumulate_(s, quad, row, start, end);
  }
  return finalize_(joined_(s, at), row);
}

// In one dimension: Mesa's software adapter has the lanes of a register lie along x.
@compute @workgroup_size(ACROSS * DOWN)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let at = vec2u(index % ACROSS, index / ACROSS);
  let first = ((group.y * groups.x + group.x) * DOWN + at.y) * GROUP;
  var s = statistic_(first, at);
  if (!GIVES) {
    return;
  }
  // Counted from 0: a barrier within must be reached by all invocations alike.
  for (var r = 0u; r < GROUP; r++) {
    let row = first + r;
    let start = from_(row);
    let end = select(start, to_(row), row < sizes.rows);
    var next = s;
    if (GROUP > 1u) {
      next = statistic_(row + 1u, at);
    }
    let begin = (start + WIDTH - 1u) / WIDTH;
    for (var quad = begin + at.x; (quad + 1u) * WIDTH <= end; quad += ACROSS) {
      write_(quad, s, row, start);
    }
    if (GROUP > 1u) {
      let last = end / WIDTH;
      if (last >= begin && last * WIDTH < end && at.x == 0u) {
        write_shared_(last, s, row, start, next, end);
      }
    }
    s = next;
  }
}
