// What the WGSL of an op on rows can name, where an invocation works on vec4.
alias E = vec4f;
alias P = vec4u;
alias B = vec4<bool>;
const WIDTH = 4u;

fn indices_(quad: u32) -> P {
  return 4u * quad + vec4u(0u, 1u, 2u, 3u);
}

fn sum_(x: E) -> f32 {
  return (x.x + x.y) + (x.z + x.w);
}

fn max_(x: E) -> f32 {
  return max(max(x.x, x.y), max(x.z, x.w));
}

fn min_(x: E) -> f32 {
  return min(min(x.x, x.y), min(x.z, x.w));
}

fn exps_(x: E) -> E {
  return exp4_(x);
}

fn any_nan_(x: E) -> bool {
  return any((bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}
