// matmul 64x16, a inner, c inner, 1576 x 768 x 4
// out[b] = f(a[b] × c[b]), in tiles of 64 × 16.
alias halves = u32;
alias halves4 = vec2u;

@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4f>;

fn load_a(base: u32, k: u32) -> vec4f {
  return a[base + k];
}
fn load_c(base: u32, k: u32) -> vec4f {
  return c[base + k];
}
fn value_(x: f32) -> f32 {

  return x;
}

var<workgroup> a_tile: array<vec4f, 272>;
var<workgroup> c_tile: array<vec4f, 80>;
fn stage_a(u: u32, k: u32, end: u32, a_start: u32, row: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let w0 = select(vec4f(), load_a((a_start + (min(row + (4u * quad + 0u), sizes.m - 1u)) * sizes.a_outer) / 4u, (k + step)), k + step < end);
  let w1 = select(vec4f(), load_a((a_start + (min(row + (4u * quad + 1u), sizes.m - 1u)) * sizes.a_outer) / 4u, (k + step)), k + step < end);
  let w2 = select(vec4f(), load_a((a_start + (min(row + (4u * quad + 2u), sizes.m - 1u)) * sizes.a_outer) / 4u, (k + step)), k + step < end);
  let w3 = select(vec4f(), load_a((a_start + (min(row + (4u * quad + 3u), sizes.m - 1u)) * sizes.a_outer) / 4u, (k + step)), k + step < end);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  a_tile[(4u * step + 0u) * 17u + quad] = v0;
  a_tile[(4u * step + 1u) * 17u + quad] = v1;
  a_tile[(4u * step + 2u) * 17u + quad] = v2;
  a_tile[(4u * step + 3u) * 17u + quad] = v3;
}
fn stage_c(u: u32, k: u32, end: u32, c_start: u32, col: u32) {
  let step = u % 4u;
  let quad = u / 4u;
  let w0 = select(vec4f(), load_c((c_start + (min(col + (4u * quad + 0u) / 4u * 4u, sizes.n - 4u) + (4u * quad + 0u) % 4u) * sizes.c_outer) / 4u, (k + step)), k + step < end);
  let w1 = select(vec4f(), load_c((c_start + (min(col + (4u * quad + 1u) / 4u * 4u, sizes.n - 4u) + (4u * quad + 1u) % 4u) * sizes.c_outer) / 4u, (k + step)), k + step < end);
  let w2 = select(vec4f(), load_c((c_start + (min(col + (4u * quad + 2u) / 4u * 4u, sizes.n - 4u) + (4u * quad + 2u) % 4u) * sizes.c_outer) / 4u, (k + step)), k + step < end);
  let w3 = select(vec4f(), load_c((c_start + (min(col + (4u * quad + 3u) / 4u * 4u, sizes.n - 4u) + (4u * quad + 3u) % 4u) * sizes.c_outer) / 4u, (k + step)), k + step < end);
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  c_tile[(4u * step + 0u) * 5u + quad] = v0;
  c_tile[(4u * step + 1u) * 5u + quad] = v1;
  c_tile[(4u * step + 2u) * 5u + quad] = v2;
  c_tile[(4u * step + 3u) * 5u + quad] = v3;
}

@compute @workgroup_size(64)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,

) {
  // Beyond the last tile it is made again: a branch here would make every load slow on a software adapter.
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  let tile = at % (sizes.tiles_m * sizes.tiles_n);
  let chunk = at / (sizes.tiles_m * sizes.tiles_n) % sizes.chunks;
  let batch = at / (sizes.tiles_m * sizes.tiles_n) / sizes.chunks;
  let batch2 = batch % sizes.batch2;
  let batch1 = batch / sizes.batch2 % sizes.batch1;
  let batch0 = batch / sizes.batch2 / sizes.batch1;
  let a_start = sizes.a_offset + batch0 * sizes.a_batch0 + batch1 * sizes.a_batch1 + batch2 * sizes.a_batch2;
  let c_start = sizes.c_offset + batch0 * sizes.c_batch0 + batch1 * sizes.c_batch1 + batch2 * sizes.c_batch2;
  let start = (chunk * sizes.batches + batch) * sizes.m * sizes.n;
  let first = chunk * sizes.chunk;
  let end = min(first + sizes.chunk, (sizes.k + 3u) / 4u);
  // Down the columns first: a tile of a processor has more of them than rows, and they stay in its cache that way.
  let row = tile % sizes.tiles_m * 64u;
  let col = tile / sizes.tiles_m * 16u;
  let x = index % 4u;
  let y = index / 4u;

  // Beyond the boundary the last rows and columns are made again.
  let r0 = min(row + (4u * (y + 0u) + 0u), sizes.m - 1u);
  let r1 = min(row + (4u * (y + 0u) + 1u), sizes.m - 1u);
  let r2 = min(row + (4u * (y + 0u) + 2u), sizes.m - 1u);
  let r3 = min(row + (4u * (y + 0u) + 3u), sizes.m - 1u);
  let c0 = min(col + (4u * (x + 0u) + 0u) / 4u * 4u, sizes.n - 4u) + (4u * (x + 0u) + 0u) % 4u;
  let c1 = min(col + (4u * (x + 0u) + 1u) / 4u * 4u, sizes.n - 4u) + (4u * (x + 0u) + 1u) % 4u;
  let c2 = min(col + (4u * (x + 0u) + 2u) / 4u * 4u, sizes.n - 4u) + (4u * (x + 0u) + 2u) % 4u;
  let c3 = min(col + (4u * (x + 0u) + 3u) / 4u * 4u, sizes.n - 4u) + (4u * (x + 0u) + 3u) % 4u;
  var s0_0 = vec4f();
  var s1_0 = vec4f();
  var s2_0 = vec4f();
  var s3_0 = vec4f();

  for (var k = first; k < end; k += 4u) {
    workgroupBarrier();
    for (var u = index; u < 64u; u += 64u) {
      stage_a(u, k, end, a_start, row);
    }
    for (var u = index; u < 16u; u += 64u) {
      stage_c(u, k, end, c_start, col);
    }
    workgroupBarrier();
    for (var step = 0u; step < 16u; step += 4u) {
      let a0_0 = a_tile[(step + 0u) * 17u + y + 0u];
      let a1_0 = a_tile[(step + 1u) * 17u + y + 0u];
      let a2_0 = a_tile[(step + 2u) * 17u + y + 0u];
      let a3_0 = a_tile[(step + 3u) * 17u + y + 0u];
      let c0_0 = c_tile[(step + 0u) * 5u + x + 0u];
      let c1_0 = c_tile[(step + 1u) * 5u + x + 0u];
      let c2_0 = c_tile[(step + 2u) * 5u + x + 0u];
      let c3_0 = c_tile[(step + 3u) * 5u + x + 0u];
      let c_col0_0 = c0_0;
      let c_col1_0 = c1_0;
      let c_col2_0 = c2_0;
      let c_col3_0 = c3_0;
      s0_0 = fma(vec4f(a3_0.x), c_col3_0, fma(vec4f(a2_0.x), c_col2_0, fma(vec4f(a1_0.x), c_col1_0, fma(vec4f(a0_0.x), c_col0_0, s0_0))));
      s1_0 = fma(vec4f(a3_0.y), c_col3_0, fma(vec4f(a2_0.y), c_col2_0, fma(vec4f(a1_0.y), c_col1_0, fma(vec4f(a0_0.y), c_col0_0, s1_0))));
      s2_0 = fma(vec4f(a3_0.z), c_col3_0, fma(vec4f(a2_0.z), c_col2_0, fma(vec4f(a1_0.z), c_col1_0, fma(vec4f(a0_0.z), c_col0_0, s2_0))));
      s3_0 = fma(vec4f(a3_0.w), c_col3_0, fma(vec4f(a2_0.w), c_col2_0, fma(vec4f(a1_0.w), c_col1_0, fma(vec4f(a0_0.w), c_col0_0, s3_0))));
    }
  }

  if (row + 4u * (y + 0u) + 0u < sizes.m && col + 4u * (x + 0u) < sizes.n) {
    {
      let p = (start + r0 * sizes.n + c0) / 4u;

      out[p] = s0_0;
    }
  }
  if (row + 4u * (y + 0u) + 1u < sizes.m && col + 4u * (x + 0u) < sizes.n) {
    {
      let p = (start + r1 * sizes.n + c0) / 4u;

      out[p] = s1_0;
    }
  }
  if (row + 4u * (y + 0u) + 2u < sizes.m && col + 4u * (x + 0u) < sizes.n) {
    {
      let p = (start + r2 * sizes.n + c0) / 4u;

      out[p] = s2_0;
    }
  }
  if (row + 4u * (y + 0u) + 3u < sizes.m && col + 4u * (x + 0u) < sizes.n) {
    {
      let p = (start + r3 * sizes.n + c0) / 4u;

      out[p] = s3_0;
    }
  }
}

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
@group(1) @binding(0) var<uniform> sizes: Sizes;
