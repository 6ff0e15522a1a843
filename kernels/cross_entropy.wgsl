// loss[r] = log Σ exp x[r, :] - (1 - ε) x[r, label] - ε mean(x[r, :]), 0 for a label that is no class, with
// stats[r] = (max, log Σ exp(x[r, :] - max)). The statistic is the largest element so far, the sum of exponentials below
// it, the sum of the distances below it, and how many elements there were: such distances stay small where the logits
// themselves are not.
const LOWEST = -3.402823466e38; // no finite logit is lower

@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> loss: array<f32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec2f>;

fn identity_() -> vec4f {
  return vec4f(LOWEST, 0.0, 0.0, 0.0);
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let inside = inside_(places_(quad), start, end);
  let seen = select(E(LOWEST), x[quad], inside);
  let top = max(LOWEST, max_(seen));
  let below = select(E(), seen - top, inside);
  let exponentials = select(E(), exp(seen - top), inside);
  return combine_(s, vec4f(top, sum_(exponentials), sum_(below), sum_(select(E(), E(1.0), inside))));
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  let top = max(a.x, b.x);
  let lift = vec2f(select(0.0, a.x - top, a.w > 0.0), select(0.0, b.x - top, b.w > 0.0));
  let fade = exp(lift);
  return vec4f(top, a.y * fade.x + b.y * fade.y, a.z + a.w * lift.x + b.z + b.w * lift.y, a.w + b.w);
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  if (row < sizes.rows) {
    let above = log_(total_(s.y));
    let label = labels[row];
    let chosen = logits[row * sizes.cols + min(label, sizes.cols - 1u)] - s.x;
    // A share of 0 is no share: 0 times an infinite distance would be NaN.
    let labelled = select(0.0, (1.0 - sizes.smoothing) * chosen, sizes.smoothing < 1.0);
    let even = select(0.0, sizes.smoothing * s.z / f32(sizes.cols), sizes.smoothing > 0.0);
    let value = above - labelled - even;
    loss[row] = select(0.0, value, label < sizes.cols);
    stats[row] = vec2f(s.x, above);
  }
  return s;
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {}
