  #for i in ROWS
  #for q in COLS / 4
  #if GUARDED
  // What a GPU stores twice, it waits for twice.
  if (
    tile.row + 4u * (down + ${i / 4 * DOWN}u) + ${i % 4}u < sizes.m &&
    tile.col + 4u * (across + ${q * ACROSS}u) < sizes.n
  ) {
  #else
  {
  #end
    #if QUADS
    let at = (tile.out_start + row${i} * sizes.n + col${4 * q}) / 4u;
    store(at, col${4 * q} / 4u, sum${i}_${q});
    #else
    let at = tile.out_start + row${i} * sizes.n;
    #for h in 4
    store(at + col${4 * q + h}, col${4 * q + h}, sum${i}_${q}[${h}]);
    #end
    #end
  }
  #end
  #end
