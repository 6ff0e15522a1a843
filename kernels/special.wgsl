// Infinities and NaN. WGSL lets a compiler assume that there are none, and they do: Mesa takes `x -
// x` for 0 and `x != x` for false, `max` forgets NaN everywhere, SwiftShader's exp(NaN) is infinite
// and its log(-2) is log(2). Where they count they are told by their bits, with which no compiler
// takes such liberties.

fn is_nan_(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) > 0x7f800000u;
}

fn is_finite_(x: f32) -> bool {
  return (bitcast<u32>(x) & 0x7fffffffu) < 0x7f800000u;
}

// A constant that is no finite number would be refused: a variable's value is none.
fn nan_() -> f32 {
  var bits = 0x7fc00000u;
  return bitcast<f32>(bits);
}

fn infinity_() -> f32 {
  var bits = 0x7f800000u;
  return bitcast<f32>(bits);
}

// A value that is of x: where x is NaN, so is it.
fn nan_or_(x: f32, value: f32) -> f32 {
  return select(value, x, is_nan_(x));
}

fn maximum_(a: f32, b: f32) -> f32 {
  return nan_or_(a, nan_or_(b, max(a, b)));
}

fn minimum_(a: f32, b: f32) -> f32 {
  return nan_or_(a, nan_or_(b, min(a, b)));
}

fn exp_(x: f32) -> f32 {
  return nan_or_(x, exp(x));
}

fn exp4_(x: vec4f) -> vec4f {
  return select(exp(x), x, (bitcast<vec4u>(x) & vec4u(0x7fffffffu)) > vec4u(0x7f800000u));
}

fn log_(x: f32) -> f32 {
  let y = select(log(x), select(nan_(), -infinity_(), x == 0.0), x <= 0.0);
  return nan_or_(x, y);
}

// A sum of exponentials of what is at most 0, each at most 1: it is finite, or NaN or an infinity
// was among them.
fn total_(sum: f32) -> f32 {
  return select(nan_(), sum, is_finite_(sum));
}
