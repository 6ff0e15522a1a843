// parts[first + w] = Σ x[i]² over the share of workgroup w: every groups-th run of LANES elements.
const LANES = 256u;

struct Sizes {
  count: u32,
  first: u32,
}
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> parts: array<f32>;
@group(1) @binding(0) var<uniform> sizes: Sizes;

var<workgroup> partial: array<f32, LANES>;

@compute @workgroup_size(LANES)
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) lane: u32,
) {
  var sum = 0.0;
  for (var k = group.x * LANES + lane; k < sizes.count; k += groups.x * LANES) {
    sum += x[k] * x[k];
  }
  partial[lane] = sum;
  for (var reach = LANES / 2u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
      partial[lane] += partial[lane + reach];
    }
  }
  if (lane == 0u) {
    parts[sizes.first + group.x] = partial[0];
  }
}
