// d = g + weight_decay p; momentum ← μ momentum + gain d; p ← p - rate step, where step is momentum, for Nesterov's
// d + μ momentum, without momentum d. x is g, y is p; the state has the momenta, in the order of the parameters.
// Source: torch.optim.SGD.
override MOMENTUM: bool; // if false, the state has no elements
override NESTEROV: bool;

fn work_(group: u32, lane: u32) {
  let end = min(256u * (group + 1u), count_);
  for (var i = 256u * group + lane; i < end; i += 64u) {
    let p = y_[i];
    // What is switched off is left out: 0 times an infinite parameter would be NaN.
    let d = x_[i] * factor[0] + select(0.0, sizes.weight_decay * p, sizes.weight_decay > 0.0);
    var step = d;
    if (MOMENTUM) {
      let momentum = sizes.mu * state[place_ + i] + sizes.gain * d;
      state[place_ + i] = momentum;
      step = select(momentum, d + sizes.mu * momentum, NESTEROV);
    }
    y_[i] = p - sizes.rate * step;
  }
}
