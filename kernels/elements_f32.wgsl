// What the WGSL of an op on rows can name, where an invocation works on single elements.
alias E = f32;
alias P = u32;
alias B = bool;
const WIDTH = 1u;

fn indices_(quad: u32) -> P {
  return quad;
}

fn sum_(x: E) -> f32 {
  return x;
}

fn max_(x: E) -> f32 {
  return x;
}

fn min_(x: E) -> f32 {
  return x;
}

fn exps_(x: E) -> E {
  return exp_(x);
}

fn any_nan_(x: E) -> bool {
  return is_nan_(x);
}
