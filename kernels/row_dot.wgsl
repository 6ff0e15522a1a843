// y[b, h, t] = Σ a[b, h, t, :] c[b, h, t, :], the rows of vec4 lying anywhere; one invocation for each row.
@group(0) @binding(0) var<storage, read> a: array<vec4f>;
@group(0) @binding(1) var<storage, read> c: array<vec4f>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * 64u + id.x;
  if (i >= sizes.count) {
    return;
  }
  let row = i % sizes.rows;
  let head = i / sizes.rows % sizes.heads;
  let batch = i / sizes.rows / sizes.heads;
  let from_a = (sizes.a_offset + batch * sizes.a_batch + head * sizes.a_head + row * sizes.a_row) / 4u;
  let from_c = (sizes.c_offset + batch * sizes.c_batch + head * sizes.c_head + row * sizes.c_row) / 4u;
  var sum = vec4f();
  for (var quad = 0u; quad < sizes.quads; quad++) {
    sum += a[from_a + quad] * c[from_c + quad];
  }
  y[i] = (sum.x + sum.y) + (sum.z + sum.w);
}
