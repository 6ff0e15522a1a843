#include ATTENTION

// The weights of the block, for each row a vec4 of each invocation.
var<workgroup> weights: array<vec4f, ${ROWS * DOWN * ACROSS}>;

// What the invocations of a row have found of it.
var<workgroup> shares: array<f32, ${ROWS * DOWN * ACROSS}>;

// The operands of a product, ${DEPTH} steps at a time, in vec4 of rows or columns. A step is a vec4
// longer than it need be: the invocations that fill the memory would else meet in the same banks.
var<workgroup> left_tile: array<vec4f, ${DEPTH * (HEIGHT + 1)}>;
var<workgroup> right_tile: array<vec4f, ${DEPTH * (ACROSS + 1)}>;
var<workgroup> block_tile: array<vec4f, ${DEPTH * (WIDTH + 1)}>;

// Fills the u-th four steps of four rows, from step 4 k on.
#for name in ROW_OPERANDS
fn stage_${name}(u: u32, k: u32, width: u32, start: u32, first: u32) {
  let step = u % ${DEPTH / 4}u;
  let quad = u / ${DEPTH / 4}u;
  #for h in 4
  let row${h} = min(first + 4u * quad + ${h}u, sizes.rows - 1u);
  let base${h} = (start + row${h} * sizes.${name}_row) / 4u;
  let w${h} = select(vec4f(), ${name}[base${h} + k + step], k + step < width);
  #end
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  #for l in 4
  left_tile[(4u * step + ${l}u) * ${HEIGHT + 1}u + quad] = v${l};
  #end
}

#end
// Fills the u-th four steps of four columns, likewise.
#for name in COLUMN_OPERANDS
fn stage_${name}(u: u32, k: u32, width: u32, start: u32, j: u32) {
  let step = u % ${DEPTH / 4}u;
  let quad = u / ${DEPTH / 4}u;
  #for h in 4
  let column${h} = min(j + 4u * quad + ${h}u, sizes.columns - 1u);
  let base${h} = (start + column${h} * sizes.${name}_row) / 4u;
  let w${h} = select(vec4f(), ${name}[base${h} + k + step], k + step < width);
  #end
  let v0 = vec4f(w0.x, w1.x, w2.x, w3.x);
  let v1 = vec4f(w0.y, w1.y, w2.y, w3.y);
  let v2 = vec4f(w0.z, w1.z, w2.z, w3.z);
  let v3 = vec4f(w0.w, w1.w, w2.w, w3.w);
  #for l in 4
  right_tile[(4u * step + ${l}u) * ${ACROSS + 1}u + quad] = v${l};
  #end
}

#end
// Fills the u-th four steps of four columns of the result: here a step is a row of the block.
fn stage_block(u: u32, k: u32, start: u32, j: u32) {
  let step = u / ${WIDTH}u;
  let quad = u % ${WIDTH}u;
  let base = (start + min(4u * quad, sizes.out_width - 4u)) / 4u;
  #for l in 4
  let column${l} = min(j + 4u * (k + step) + ${l}u, sizes.columns - 1u);
  let at${l} = base + column${l} * (sizes.${BLOCK}_row / 4u);
  let v${l} = select(vec4f(), ${BLOCK}[at${l}], k + step < ${ACROSS}u);
  #end
  #for l in 4
  block_tile[(4u * step + ${l}u) * ${WIDTH + 1}u + quad] = v${l};
  #end
}

// The invocations load together what any of them needs, and share it through workgroup memory.
@compute @workgroup_size(${ACROSS * DOWN})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
) {
  let tile = tile_of(group, groups);
  let batch = tile.batch;
  let first = tile.first;
  let right = index % ${ACROSS}u;
  let below = index / ${ACROSS}u;
  #for name in OPERANDS
  let ${name}_start = sizes.${name}_offset + batch / sizes.heads * sizes.${name}_batch +
    batch % sizes.heads * sizes.${name}_head;
  #end
  #for i in ROWS
  let local_row${i} = 4u * (below + ${i / 4 * DOWN}u) + ${i % 4}u;
  let row${i} = min(first + local_row${i}, sizes.rows - 1u);
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
    for (var k = 0u; k < sizes.width; k += ${DEPTH / 4}u) {
      workgroupBarrier();
      for (var u = index; u < ${HEIGHT * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
        stage_x(u, k, sizes.width, x_start, first);
      }
      for (var u = index; u < ${ACROSS * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
        stage_y(u, k, sizes.width, y_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < ${DEPTH}u; step += 4u) {
        #for l in 4
        #for q in ROWS / 4
        let x${l}_${q} = left_tile[(step + ${l}u) * ${HEIGHT + 1}u + below + ${q * DOWN}u];
        #end
        #end
        #for l in 4
        let y${l} = right_tile[(step + ${l}u) * ${ACROSS + 1}u + right];
        #end
        #for i in ROWS
        score${i} = fma(vec4f(x3_${i / 4}[${i % 4}]), y3, fma(vec4f(x2_${i / 4}[${i % 4}]), y2,
          fma(vec4f(x1_${i / 4}[${i % 4}]), y1, fma(vec4f(x0_${i / 4}[${i % 4}]), y0, score${i}))));
        #end
      }
    }

    #if GRADIENT
    // The gradients of the block's weights.
    #for i in ROWS
    var slope${i} = vec4f();
    #end
    for (var k = 0u; k < sizes.depth; k += ${DEPTH / 4}u) {
      workgroupBarrier();
      for (var u = index; u < ${HEIGHT * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
        stage_w(u, k, sizes.depth, w_start, first);
      }
      for (var u = index; u < ${ACROSS * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
        stage_z(u, k, sizes.depth, z_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < ${DEPTH}u; step += 4u) {
        #for l in 4
        #for q in ROWS / 4
        let w${l}_${q} = left_tile[(step + ${l}u) * ${HEIGHT + 1}u + below + ${q * DOWN}u];
        #end
        #end
        #for l in 4
        let z${l} = right_tile[(step + ${l}u) * ${ACROSS + 1}u + right];
        #end
        #for i in ROWS
        slope${i} = fma(vec4f(w3_${i / 4}[${i % 4}]), z3, fma(vec4f(w2_${i / 4}[${i % 4}]), z2,
          fma(vec4f(w1_${i / 4}[${i % 4}]), z1, fma(vec4f(w0_${i / 4}[${i % 4}]), z0, slope${i}))));
        #end
      }
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
    workgroupBarrier();
    #for i in ROWS
    shares[local_row${i} * ${ACROSS}u + right] = max(max(e${i}.x, e${i}.y), max(e${i}.z, e${i}.w));
    #end
    workgroupBarrier();
    #for i in ROWS
    var max${i} = shares[local_row${i} * ${ACROSS}u];
    #for x in ACROSS - 1
    max${i} = max(max${i}, shares[local_row${i} * ${ACROSS}u + ${x + 1}u]);
    #end
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
    workgroupBarrier();
    #for i in ROWS
    weights[local_row${i} * ${ACROSS}u + right] = p${i};
    #end
    workgroupBarrier();

    // The weights' product with the block is added to the result.
    for (var k = 0u; k < ${ACROSS}u; k += ${DEPTH / 4}u) {
      workgroupBarrier();
      for (var u = index; u < ${WIDTH * DEPTH / 4}u; u += ${ACROSS * DOWN}u) {
        stage_block(u, k, ${BLOCK}_start, j);
      }
      workgroupBarrier();
      for (var step = 0u; step < ${DEPTH}u; step += 4u) {
        #for i in ROWS
        let p_${i} = weights[local_row${i} * ${ACROSS}u + k + step / 4u];
        #end
        #for l in 4
        #for q in COLS / 4
        let b${l}_${q} = block_tile[(step + ${l}u) * ${WIDTH + 1}u + right + ${q * ACROSS}u];
        #end
        #end
        #for q in COLS / 4
        #for i in ROWS
        out${i}_${q} = fma(vec4f(p_${i}.w), b3_${q}, fma(vec4f(p_${i}.z), b2_${q},
          fma(vec4f(p_${i}.y), b1_${q}, fma(vec4f(p_${i}.x), b0_${q}, out${i}_${q}))));
        #end
        #end
      }
    }
  }

  #if FORWARD
  workgroupBarrier();
  #for i in ROWS
  shares[local_row${i} * ${ACROSS}u + right] = total${i};
  #end
  workgroupBarrier();
  #for i in ROWS
  var add${i} = shares[local_row${i} * ${ACROSS}u];
  #for x in ACROSS - 1
  add${i} += shares[local_row${i} * ${ACROSS}u + ${x + 1}u];
  #end
  #end
  #for i in ROWS
  let sum${i} = total_(add${i});
  #end
  #end
  #for i in ROWS
  if (first + local_row${i} < sizes.rows) {
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
  }
  #end
}
