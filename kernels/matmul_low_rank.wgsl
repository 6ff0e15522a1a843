  #if LOW_RANK
  // The product of few terms is loaded as it is needed.
  #if CHANGE_MASKED
  #for i in ROWS
  #for q in COLS / 4
  var change${i}_${q} = vec4f();
  #end
  #end
  #end
  for (var r = 0u; r < sizes.rank; r++) {
    #for q in COLS / 4
    let up${q} = vec4f(
      low_rank_c[col${4 * q} * sizes.low_rank_c_row + r * sizes.low_rank_c_col],
      low_rank_c[col${4 * q + 1} * sizes.low_rank_c_row + r * sizes.low_rank_c_col],
      low_rank_c[col${4 * q + 2} * sizes.low_rank_c_row + r * sizes.low_rank_c_col],
      low_rank_c[col${4 * q + 3} * sizes.low_rank_c_row + r * sizes.low_rank_c_col],
    );
    #end
    #for i in ROWS
    let down${i} = vec4f(low_rank_a[row${i} * sizes.low_rank_a_row + r * sizes.low_rank_a_col]);
    #for q in COLS / 4
    #if CHANGE_MASKED
    change${i}_${q} = fma(down${i}, up${q}, change${i}_${q});
    #else
    sum${i}_${q} = fma(down${i}, up${q}, sum${i}_${q});
    #end
    #end
    #end
  }
  #if CHANGE_MASKED
  #for i in ROWS
  #for q in COLS / 4
  sum${i}_${q} += change${i}_${q} * vec4f(
    mask1(tile.out_start + row${i} * sizes.n + col${4 * q}),
    mask1(tile.out_start + row${i} * sizes.n + col${4 * q + 1}),
    mask1(tile.out_start + row${i} * sizes.n + col${4 * q + 2}),
    mask1(tile.out_start + row${i} * sizes.n + col${4 * q + 3}),
  );
  #end
  #end
  #end

  #end
