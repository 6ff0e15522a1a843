// d = g + weight_decay p; momentum ← μ momentum + gain d; p ← p - rate step, where step is momentum, for Nesterov's
// d + μ momentum, without momentum d; one invocation for each element. x is g, y is p; the state has the momenta, in the
// order of the parameters. Source: torch.optim.SGD.
override MOMENTUM: bool; // if false, the state has no elements
override NESTEROV: bool;

fn work_(m: u32, group: u32, lane: u32) {
  let i = 64u * group + lane;
  if (i >= count_(m)) {
    return;
  }
  let p = y_(m, i);
  let d = x_(m, i) * factor[0] + sizes.weight_decay * p;
  var step = d;
  if (MOMENTUM) {
    let at = place_(m) + i;
    let momentum = sizes.mu * state[at] + sizes.gain * d;
    state[at] = momentum;
    step = select(momentum, d + sizes.mu * momentum, NESTEROV);
  }
  set_y_(m, i, p - sizes.rate * step);
}
