#include ATTENTION

// The weights of the block, for each row a vec4 of each invocation.
var<workgroup> weights: array<vec4f, ${ROWS * DOWN * ACROSS}>;

// The lanes lie along the columns and share the rows: each lane loads some of them, and
// broadcasts them.
@compute @workgroup_size(${ACROSS * DOWN})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
  @builtin(subgroup_invocation_id) lane: u32,
) {
  let tile = tile_of(group, groups);
  let batch = tile.batch;
  let first = tile.first;
  let right = lane;
  #for name in OPERANDS
  let ${name}_start = sizes.${name}_offset + batch / sizes.heads * sizes.${name}_batch +
    batch % sizes.heads * sizes.${name}_head;
  #end
  #for i in ROWS
  let row${i} = min(first + ${i}u, sizes.rows - 1u);
  #end
  #for q in COLS / 4
  let out_col${q} = min(4u * (right + ${q * ACROSS}u), sizes.out_width - 4u);
  #end
  #if GRADIENT
  #for i in ROWS
  let log${i} = of_row(logs[batch * sizes.rows + row${i}]);
  let delta${i} = of_row(deltas[batch * sizes.rows + row${i}]);
  #end
  #end
  #if FORWARD
  #for i in ROWS
  var most${i} = LOWEST;
  var total${i} = 0.0;
  #end
  #end
  #for i in ROWS
  #for q in COLS / 4
  var out${i}_${q} = vec4f();
  #end
  #end

  #if CAUSAL
  // Queries see keys up to themselves, and keys are seen by queries from themselves on.
  let start = select(0u, first / ${4 * ACROSS}u * ${4 * ACROSS}u, sizes.keys == 1u);
  let end = min(first + ${ROWS * DOWN}u, sizes.rows);
  let limit = select(min(sizes.columns, end), sizes.columns, sizes.keys == 1u);
  #else
  let start = 0u;
  let limit = sizes.columns;
  #end
  for (var j = start; j < limit; j += ${4 * ACROSS}u) {
    let column = vec4u(j + 4u * right) + vec4u(0u, 1u, 2u, 3u);
    let column0 = min(column.x, sizes.columns - 1u);
    let column1 = min(column.y, sizes.columns - 1u);
    let column2 = min(column.z, sizes.columns - 1u);
    let column3 = min(column.w, sizes.columns - 1u);

    // The block's scores.
    #for i in ROWS
    var score${i} = vec4f();
    #end
    #for r in ROUNDS
    let x_f${r} = (lane + ${r * ACROSS}u) % ${ROWS}u;
    let x_base${r} = (x_start + min(first + x_f${r}, sizes.rows - 1u) * sizes.x_row) / 4u;
    #end
    #for h in 4
    let y_base${h} = (y_start + column${h} * sizes.y_row) / 4u;
    #end
    for (var k = 0u; k < sizes.width; k++) {
      #for r in ROUNDS
      let x_mine${r} = x[x_base${r} + k];
      #end
      #for i in ROWS
      let x_${i} = subgroupBroadcast(x_mine${i / ACROSS}, ${i % ACROSS}u);
      #end
      #for h in 4
      let y_${h} = y[y_base${h} + k];
      #end
      let y0 = vec4f(y_0.x, y_1.x, y_2.x, y_3.x);
      let y1 = vec4f(y_0.y, y_1.y, y_2.y, y_3.y);
      let y2 = vec4f(y_0.z, y_1.z, y_2.z, y_3.z);
      let y3 = vec4f(y_0.w, y_1.w, y_2.w, y_3.w);
      #for i in ROWS
      score${i} += fma(vec4f(x_${i}.w), y3, fma(vec4f(x_${i}.z), y2,
        fma(vec4f(x_${i}.y), y1, x_${i}.x * y0)));
      #end
    }

    #if GRADIENT
    // The gradients of the block's weights.
    #for i in ROWS
    var slope${i} = vec4f();
    #end
    #for r in ROUNDS
    let w_f${r} = (lane + ${r * ACROSS}u) % ${ROWS}u;
    let w_base${r} = (w_start + min(first + w_f${r}, sizes.rows - 1u) * sizes.w_row) / 4u;
    #end
    #for h in 4
    let z_base${h} = (z_start + column${h} * sizes.z_row) / 4u;
    #end
    for (var k = 0u; k < sizes.depth; k++) {
      #for r in ROUNDS
      let w_mine${r} = w[w_base${r} + k];
      #end
      #for i in ROWS
      let w_${i} = subgroupBroadcast(w_mine${i / ACROSS}, ${i % ACROSS}u);
      #end
      #for h in 4
      let z_${h} = z[z_base${h} + k];
      #end
      let z0 = vec4f(z_0.x, z_1.x, z_2.x, z_3.x);
      let z1 = vec4f(z_0.y, z_1.y, z_2.y, z_3.y);
      let z2 = vec4f(z_0.z, z_1.z, z_2.z, z_3.z);
      let z3 = vec4f(z_0.w, z_1.w, z_2.w, z_3.w);
      #for i in ROWS
      slope${i} += fma(vec4f(w_${i}.w), z3, fma(vec4f(w_${i}.z), z2,
        fma(vec4f(w_${i}.y), z1, w_${i}.x * z0)));
      #end
    }

    #end
    #if !FORWARD
    let log = vec4f(
      of_column(logs[batch * sizes.columns + column0]),
      of_column(logs[batch * sizes.columns + column1]),
      of_column(logs[batch * sizes.columns + column2]),
      of_column(logs[batch * sizes.columns + column3]),
    );
    #end
    #if GRADIENT
    let delta = vec4f(
      of_column(deltas[batch * sizes.columns + column0]),
      of_column(deltas[batch * sizes.columns + column1]),
      of_column(deltas[batch * sizes.columns + column2]),
      of_column(deltas[batch * sizes.columns + column3]),
    );
    #end

    // What is not seen has no weight at all: a score, however small, would have some.
    let known = column < vec4u(sizes.columns);
    #for i in ROWS
    #if CAUSAL
    let order${i} = select(column <= vec4u(row${i}), column >= vec4u(row${i}), sizes.keys == 1u);
    let seen${i} = known & order${i};
    #else
    let seen${i} = known;
    #end
    #if FORWARD
    let e${i} = select(vec4f(LOWEST), score${i} * sizes.scale, seen${i});
    #else
    let e${i} = score${i} * sizes.scale;
    #end
    #end
    #if FORWARD
    #for i in ROWS
    let max${i} = subgroupMax(max(max(e${i}.x, e${i}.y), max(e${i}.z, e${i}.w)));
    #end
    #for i in ROWS
    let top${i} = max(most${i}, max${i});
    let fade${i} = exp(most${i} - top${i});
    most${i} = top${i};
    let p${i} = select(vec4f(), exp(e${i} - top${i}), seen${i});
    total${i} = total${i} * fade${i} + dot(p${i}, vec4f(1.0));
    #for q in COLS / 4
    out${i}_${q} *= fade${i};
    #end
    #end
    #end
    #if VALUES
    #for i in ROWS
    let p${i} = select(vec4f(), exp4_(e${i} - log), seen${i});
    #end
    #end
    #if GRADIENT
    #for i in ROWS
    let weight${i} = sizes.scale * exp(e${i} - (log${i} + log));
    let p${i} = select(vec4f(), weight${i} * (slope${i} - (delta${i} + delta)), seen${i});
    #end
    #end

    // The lanes of a register go on together, so that each can load what another has stored: a
    // barrier here would cost a third as much as all else.
    #for i in ROWS
    weights[${i}u * ${ACROSS}u + right] = p${i};
    #end

    // The weights' product with the block is added to the result.
    #for r in ROUNDS
    let p_base${r} = (lane + ${r * ACROSS}u) % ${ROWS}u * ${ACROSS}u;
    #end
    #for q in COLS / 4
    let b_base${q} = (${BLOCK}_start + out_col${q}) / 4u;
    #end
    for (var k = 0u; k < ${ACROSS}u; k++) {
      #for r in ROUNDS
      let p_mine${r} = weights[p_base${r} + k];
      #end
      #for i in ROWS
      let p_${i} = subgroupBroadcast(p_mine${i / ACROSS}, ${i % ACROSS}u);
      #end
      #for l in 4
      let step${l} = min(j + 4u * k + ${l}u, sizes.columns - 1u) * (sizes.${BLOCK}_row / 4u);
      #for q in COLS / 4
      let b${l}_${q} = ${BLOCK}[b_base${q} + step${l}];
      #end
      #end
      #for q in COLS / 4
      #for i in ROWS
      out${i}_${q} += fma(vec4f(p_${i}.w), b3_${q}, fma(vec4f(p_${i}.z), b2_${q},
        fma(vec4f(p_${i}.y), b1_${q}, p_${i}.x * b0_${q})));
      #end
      #end
    }
  }

  #if FORWARD
  #for i in ROWS
  let add${i} = subgroupAdd(total${i});
  #end
  #for i in ROWS
  let sum${i} = total_(add${i});
  #end
  #end
  #for i in ROWS
  #for q in COLS / 4
  #if FORWARD
  out[(out_start + row${i} * sizes.out_row + out_col${q}) / 4u] = out${i}_${q} / sum${i};
  #else
  out[(out_start + row${i} * sizes.out_row + out_col${q}) / 4u] = out${i}_${q};
  #end
  #end
  #if FORWARD
  logs[batch * sizes.rows + row${i}] = most${i} + log_(sum${i});
  #end
  #end
}
