// y[o, p] = Σ x[o, chunk p], or the largest or smallest of them, for rows that are cut into chunks of `chunk` elements, the
// last one shorter. The statistic is what the quads of a block come to, what the blocks before it do, and how many quads
// are in the block: short chains, so that a long sum does not outgrow what is added to it. The last number of the statistic
// is above 0 where an extreme met NaN, which max and min forget.
override KIND: u32; // 0 sum, 1 max, 2 min
const BLOCK = 32.0;

@group(0) @binding(0) var<storage, read> x: array<E>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

fn from_(row: u32) -> u32 {
  return row / sizes.chunks * sizes.count + row % sizes.chunks * sizes.chunk;
}

fn to_(row: u32) -> u32 {
  return min(from_(row) + sizes.chunk, (row / sizes.chunks + 1u) * sizes.count);
}

fn merge_(a: f32, b: f32) -> f32 {
  if (KIND == 0u) {
    return a + b;
  }
  return select(min(a, b), max(a, b), KIND == 1u);
}

fn identity_() -> vec4f {
  let nothing = select(select(infinity_(), -infinity_(), KIND == 1u), 0.0, KIND == 0u);
  return vec4f(nothing, nothing, 0.0, 0.0);
}

fn accumulate_(s: vec4f, quad: u32, row: u32, start: u32, end: u32) -> vec4f {
  let full = s.z == BLOCK;
  let seen = select(E(identity_().x), x[quad], inside_(places_(quad), start, end));
  let value = select(select(min_(seen), max_(seen), KIND == 1u), sum_(seen), KIND == 0u);
  let block = merge_(select(s.x, identity_().x, full), value);
  let unknown = select(0.0, 1.0, KIND > 0u && any_nan_(seen));
  return vec4f(block, select(s.y, merge_(s.y, s.x), full), select(s.z + 1.0, 1.0, full), s.w + unknown);
}

fn combine_(a: vec4f, b: vec4f) -> vec4f {
  return vec4f(merge_(merge_(a.x, a.y), merge_(b.x, b.y)), identity_().x, 0.0, a.w + b.w);
}

fn finalize_(s: vec4f, row: u32) -> vec4f {
  if (row < sizes.rows) {
    y[row] = select(merge_(s.x, s.y), nan_(), s.w > 0.0);
  }
  return s;
}

fn write_(quad: u32, s: vec4f, row: u32, start: u32) {}

fn write_shared_(quad: u32, s: vec4f, row: u32, start: u32, next: vec4f, end: u32) {}
