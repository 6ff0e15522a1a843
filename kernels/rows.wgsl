// The frame of kernels that work on each row by itself: first a statistic of the row, then its
// elements. The op, whose WGSL comes before, says what they are:
//
//   identity_()                             the statistic of no elements, a vec4f
//   accumulate_(s, quad, row, start, end)   s with the elements of a quad that are in the row
//   combine_(a, b)                          the statistic of two shares of a row
//   finalize_(s, row)                       what the elements need of it
//   write_(quad, s, row, start)             makes the new elements of a quad
//   write_shared_(quad, s, row, start, next, end)
//                                           those of a quad of two rows, the second from `end` on
//
// A quad, E, is a vec4 along the row, or one element where WIDTH is 1. A group of rows is as many
// as make up quads together, so that no quad is written by two invocations. Rows lie one after
// another, or where the op's row_start_(row) and row_end_(row) say. The constants are:
//
//   ACROSS   invocations of a row, a power of 2
//   DOWN     groups of rows of a workgroup
//   GROUP    rows of a group
//   WRITES   whether there are new elements
//   ALIGNED  whether rows begin and end with quads

var<workgroup> shares: array<vec4f, ACROSS * DOWN>;

// Which of some indices are in a row.
fn inside_(at: P, start: u32, end: u32) -> B {
  if (ALIGNED) {
    return B(true);
  }
  return (at >= P(start)) & (at < P(end));
}

// The statistic of a row, from its invocations' shares.
fn combined_(share: vec4f, invocation: vec2u) -> vec4f {
  if (ACROSS == 1u) {
    return share;
  }
  let index = invocation.y * ACROSS + invocation.x;
  shares[index] = share;
  for (var reach = ACROSS / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (invocation.x < reach) {
      shares[index] = combine_(shares[index], shares[index + reach]);
    }
  }
  workgroupBarrier();
  let s = shares[invocation.y * ACROSS];
  workgroupBarrier(); // before the next row's shares
  return s;
}

fn statistic_(row: u32, invocation: vec2u) -> vec4f {
  var s = identity_();
  let start = row_start_(row);
  // Of rows beyond the last one nothing is read.
  let end = select(start, row_end_(row), row < sizes.rows);
  for (var quad = start / WIDTH + invocation.x; quad * WIDTH < end; quad += ACROSS) {
    s = accumulate_(s, quad, row, start, end);
  }
  return finalize_(combined_(s, invocation), row);
}

// In one dimension: Mesa's software driver has the lanes of a register lie along x.
@compute @workgroup_size(ACROSS * DOWN)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let invocation = vec2u(index % ACROSS, index / ACROSS);
  let first = ((group.y * groups.x + group.x) * DOWN + invocation.y) * GROUP;
  var s = statistic_(first, invocation);
  if (!WRITES) {
    return;
  }
  // Counted from 0: a barrier within must be reached by all invocations alike.
  for (var r = 0u; r < GROUP; r++) {
    let row = first + r;
    let start = row_start_(row);
    let end = select(start, row_end_(row), row < sizes.rows);
    var next = s;
    if (GROUP > 1u) {
      next = statistic_(row + 1u, invocation);
    }
    let begin = (start + WIDTH - 1u) / WIDTH;
    for (var quad = begin + invocation.x; (quad + 1u) * WIDTH <= end; quad += ACROSS) {
      write_(quad, s, row, start);
    }
    if (GROUP > 1u) {
      let last = end / WIDTH;
      if (last >= begin && last * WIDTH < end && invocation.x == 0u) {
        write_shared_(last, s, row, start, next, end);
      }
    }
    s = next;
  }
}
