// parts[place + w] = times Σ x[i]² over the elements of workgroup w, 1024 of them.
var<workgroup> partial: array<f32, 64>;

fn work_(m: u32, group: u32, lane: u32) {
  let end = min(1024u * (group + 1u), count_(m));
  var sum = 0.0;
  for (var i = 1024u * group + lane; i < end; i += 64u) {
    let x = x_(m, i);
    sum += x * x;
  }
  partial[lane] = sum;
  for (var reach = 32u; reach > 0u; reach /= 2u) {
    workgroupBarrier();
    if (lane < reach) {
      partial[lane] += partial[lane + reach];
    }
  }
  if (lane == 0u) {
    parts[place_(m) + group] = times_(m) * partial[0];
  }
}
