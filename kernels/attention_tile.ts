/**
 * The WGSL of attention and of its gradients, none of which puts the table of scores into memory.
 *
 * @module
 */

import type { Style } from "./style.ts";

/**
 * What is summed over the other rows j for each own row i, with scores `s = scale · x · y` and weights `p`:
 *
 * - `forward`: `Σ p z`, softmax of the scores giving the weights; x is q, y is k, z is v. Also the logarithm of each
 *   row's sum of exponentials.
 * - `values`: `Σ p z`, the weights from that logarithm; x is k, y is q, z is the output's gradient: the gradient of v.
 * - `queries`: `Σ scale p (w · z - δ) y`, with δ of the own row; x is q, w the output's gradient, y is k, z is v: the
 *   gradient of q.
 * - `keys`: the same with δ of the other row; x is k, w is v, y is q, z the output's gradient: the gradient of k.
 *
 * The logarithm and δ, the sum of the output times its gradient, belong to queries. Source: Dao et al., arXiv 2205.14135,
 * algorithms 1 and 4.
 */
export type Sum = "forward" | "values" | "queries" | "keys";

/** What a kernel is made for. */
export interface AttentionTile {
  /** How invocations share the other rows. */
  readonly style: Style;
  /** What is summed. */
  readonly sum: Sum;
  /** Whether a query sees only the keys up to its own number. */
  readonly causal: boolean;
  /** Width of x and y, a multiple of 4. */
  readonly width: number;
  /** Width of w and z, a multiple of 4. */
  readonly depth: number;
  /** Own rows of an invocation. */
  readonly rows: number;
  /** Invocations of a workgroup. */
  readonly lanes: number;
}

/** Other rows that are worked on in a step, and those that a workgroup holds in its memory at a time. */
const [STEP, HELD] = [8, 16];

const PARTS = "xyzw";
const range = (count: number) => Array.from({ length: count }, (_, i) => i);
const each = (count: number, line: (i: number) => string) => range(count).map(line).join("\n");
const optional = (wanted: boolean, text: string) => wanted ? text : "";

/** The operands of each sum: own rows, other rows, then what queries have. */
export const OPERANDS: Readonly<Record<Sum, readonly ("x" | "w" | "y" | "z")[]>> = {
  forward: ["x", "y", "z"],
  values: ["x", "y", "z"],
  queries: ["x", "w", "y", "z"],
  keys: ["x", "w", "y", "z"],
};

/** The WGSL of one of the sums. */
export function attentionWgsl(tile: AttentionTile): string {
  const { style, sum, causal, width, depth, rows, lanes } = tile;
  const forward = sum === "forward";
  const gradient = sum === "queries" || sum === "keys";
  const ownLog = sum === "queries";
  const [out, source] = gradient ? [width, "y"] : [depth, "z"];
  const statistics = forward ? [] : gradient ? ["logs", "deltas"] : ["logs"];
  const bindings = [
    ...OPERANDS[sum].map((name) => ({ name, access: "read", type: "vec4f" })),
    ...statistics.map((name) => ({ name, access: "read", type: "f32" })),
    { name: "out", access: "read_write", type: "vec4f" },
    ...(forward ? [{ name: "logs", access: "read_write", type: "f32" }] : []),
  ];
  const places = [...OPERANDS[sum], "out"];
  const all = (line: (r: number) => string) => each(rows, line);
  const halves = range(STEP / 4);
  return /* wgsl */ `// ${sum} of attention; an invocation makes ${rows} rows, ${STEP} others at a time.
struct Sizes {
  rows: u32,
  others: u32,
  heads: u32,
  tiles: u32,
  groups: u32,
  scale: f32,
${places.map((name) => ["offset", "batch", "head", "row"].map((field) => `  ${name}_${field}: u32,`).join("\n")).join("\n")}
}
${bindings.map(({ name, access, type }, i) => `@group(0) @binding(${i}) var<storage, ${access}> ${name}: array<${type}>;`).join("\n")}
@group(1) @binding(0) var<uniform> sizes: Sizes;

const HIDDEN = -1e30; // so low a score that its weight is 0, and finite
${
    optional(style === "workgroup", `
var<workgroup> y_tile: array<vec4f, ${HELD * width / 4}>;
var<workgroup> z_tile: array<vec4f, ${HELD * depth / 4}>;`)
  }

@compute @workgroup_size(${lanes})
fn main(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) index: u32,
  ${optional(style === "subgroup", "@builtin(subgroup_invocation_id) id: u32,")}
) {
  let at = min(group.y * groups.x + group.x, sizes.groups - 1u);
  let batch = at / sizes.tiles;
  let lane = ${style === "subgroup" ? "id" : "index"};
  let first = at % sizes.tiles * ${rows * lanes}u;
${
    places.map((name) =>
      `  let ${name}_start = sizes.${name}_offset + batch / sizes.heads * sizes.${name}_batch + batch % sizes.heads * sizes.${name}_head;`
    ).join("\n")
  }
${all((r) => `  let r${r} = min(first + ${r * lanes}u + lane, sizes.rows - 1u);`)}
${
    OPERANDS[sum].filter((name) => name === "x" || name === "w").map((name) =>
      all((r) =>
        each((name === "x" ? width : depth) / 4, (d) =>
          `  let ${name}${r}_${d} = ${name}[(${name}_start + r${r} * sizes.${name}_row) / 4u + ${d}u];`))
    ).join("\n")
  }
${optional(ownLog, all((r) => `  let log${r} = logs[batch * sizes.rows + r${r}];\n  let delta${r} = deltas[batch * sizes.rows + r${r}];`))}
${optional(forward, all((r) => `  var most${r} = HIDDEN;\n  var total${r} = 0.0;`))}
${all((r) => each(out / 4, (d) => `  var o${r}_${d} = vec4f();`))}
${loopOf(tile, `
${all((r) => halves.map((h) => `    var s${r}_${h} = vec4f();`).join("\n"))}
${dot(tile, "y", "x", "s", width)}
${optional(gradient, all((r) => halves.map((h) => `    var t${r}_${h} = vec4f();`).join("\n")))}
${optional(gradient, dot(tile, "z", "w", "t", depth))}
${halves.map((h) => `    let other${h} = vec4u(${range(4).map((c) => `j + ${4 * h + c}u`).join(", ")});`).join("\n")}
${optional(!forward && !ownLog, halves.map((h) => ofOthers("log", "logs", h)).join("\n"))}
${optional(sum === "keys", halves.map((h) => ofOthers("delta", "deltas", h)).join("\n"))}
${
    all((r) => {
      const seen = (h: number) => {
        const known = `(other${h} < vec4u(sizes.others))`;
        if (!causal) return known;
        const order = sum === "keys" || sum === "values" ? `other${h} >= vec4u(r${r})` : `other${h} <= vec4u(r${r})`;
        return `(${known} & (${order}))`;
      };
      const scores = halves.map((h) => `    let e${r}_${h} = select(vec4f(HIDDEN), s${r}_${h} * sizes.scale, ${seen(h)});`);
      if (forward) {
        return [
          ...scores,
          `    let top${r} = ${halves.map((h) => `max(max(e${r}_${h}.x, e${r}_${h}.y), max(e${r}_${h}.z, e${r}_${h}.w))`).reduce((a, b) => `max(${a}, ${b})`, `most${r}`)};`,
          `    let fade${r} = exp(most${r} - top${r});`,
          `    most${r} = top${r};`,
          ...halves.map((h) => `    let p${r}_${h} = exp(e${r}_${h} - top${r});`),
          `    total${r} = total${r} * fade${r} + ${halves.map((h) => `dot(p${r}_${h}, vec4f(1.0))`).join(" + ")};`,
          each(out / 4, (d) => `    o${r}_${d} *= fade${r};`),
        ].join("\n");
      }
      const log = (h: number) => ownLog ? `log${r}` : `log${h}`;
      const delta = (h: number) => ownLog ? `delta${r}` : `delta${h}`;
      const weight = (h: number) => `exp(e${r}_${h} - ${log(h)})`;
      return [
        ...scores,
        ...halves.map((h) =>
          gradient
            ? `    let p${r}_${h} = sizes.scale * ${weight(h)} * (t${r}_${h} - ${delta(h)});`
            : `    let p${r}_${h} = ${weight(h)};`
        ),
      ].join("\n");
    })
  }
${
    each(out / 4, (d) =>
      othersOf(tile, source, d) + "\n" +
      all((r) =>
        `    o${r}_${d} = ${
          range(STEP).reduce((acc, i) => `fma(vec4f(p${r}_${i >> 2}.${PARTS[i & 3]}), ${source}${d}_${i}, ${acc})`, `o${r}_${d}`)
        };`))
  }
`)}
${
    all((r) => {
      const stores = [
        ...range(out / 4).map((d) => `  out[(out_start + r${r} * sizes.out_row) / 4u + ${d}u] = o${r}_${d}${forward ? ` / total${r}` : ""};`),
        ...(forward ? [`  logs[batch * sizes.rows + r${r}] = most${r} + log(total${r});`] : []),
      ].join("\n");
      return style === "workgroup" ? `  if (first + ${r * lanes}u + lane < sizes.rows) {\n${stores}\n  }` : stores;
    })
  }
}
`;
}

/** What the other rows of a step have of a statistic. */
function ofOthers(name: string, array: string, h: number): string {
  const one = (c: number) => `${array}[batch * sizes.others + min(j + ${4 * h + c}u, sizes.others - 1u)]`;
  return `    let ${name}${h} = vec4f(${range(4).map(one).join(", ")});`;
}

/** The d-th vec4 of each of a step's other rows. */
function othersOf({ style, lanes, width, depth }: AttentionTile, name: string, d: number): string {
  const held = (name === "y" ? width : depth) / 4;
  if (style === "workgroup") {
    return each(STEP, (i) => `    let ${name}${d}_${i} = ${name}_tile[(j - held + ${i}u) * ${held}u + ${d}u];`);
  }
  if (style === "lane") {
    return each(STEP, (i) => `    let ${name}${d}_${i} = ${name}[${name}_row${i} + ${d}u];`);
  }
  return each(Math.ceil(STEP / lanes), (g) => `    let mine_${name}${d}_${g} = ${name}[${name}_row${g} + ${d}u];`) + "\n" +
    each(STEP, (i) => `    let ${name}${d}_${i} = subgroupBroadcast(mine_${name}${d}_${Math.floor(i / lanes)}, ${i % lanes}u);`);
}

/** Products of the own rows' `own` with the other rows' `name`, added to `to`. */
function dot(tile: AttentionTile, name: string, own: string, to: string, size: number): string {
  return each(size / 4, (d) =>
    `    {\n${othersOf(tile, name, d)}\n` +
    each(STEP / 4, (h) =>
      range(4).map((c) => `    let c${h}_${c} = vec4f(${range(4).map((i) => `${name}${d}_${4 * h + i}.${PARTS[c]}`).join(", ")});`).join("\n") + "\n" +
      each(tile.rows, (r) =>
        `    ${to}${r}_${h} = ${
          range(4).reduce((acc, c) => `fma(vec4f(${own}${r}_${d}.${PARTS[c]}), c${h}_${c}, ${acc})`, `${to}${r}_${h}`)
        };`)) +
    "\n    }");
}

/** Runs `body` for each step over the other rows, numbered from `j` on. */
function loopOf({ style, sum, causal, width, depth, rows, lanes }: AttentionTile, body: string): string {
  const tileEnd = `min(first + ${rows * lanes}u, sizes.rows)`;
  // Of a causal mask, queries see keys up to themselves, and keys are seen by queries from themselves on.
  const fromOwn = causal && (sum === "keys" || sum === "values");
  const begin = fromOwn ? `first / ${HELD}u * ${HELD}u` : "0u";
  const end = causal && !fromOwn ? `min(sizes.others, ${tileEnd})` : "sizes.others";
  const row = (name: string, at: string) => `(${name}_start + min(${at}, sizes.others - 1u) * sizes.${name}_row) / 4u`;
  if (style !== "workgroup") {
    const count = style === "lane" ? STEP : Math.ceil(STEP / lanes);
    const at = (i: number) => style === "lane" ? `j + ${i}u` : `j + ${i * lanes}u + lane % ${STEP}u`;
    return `
  let end = ${end};
  for (var j = ${begin}; j < end; j += ${STEP}u) {
${["y", "z"].map((name) => each(count, (i) => `    let ${name}_row${i} = ${row(name, at(i))};`)).join("\n")}
${body}
  }`;
  }
  const fill = (name: string, size: number) => `
    for (var u = index; u < ${HELD * size / 4}u; u += ${lanes}u) {
      ${name}_tile[u] = ${name}[${row(name, `held + u / ${size / 4}u`)} + u % ${size / 4}u];
    }`;
  return `
  let end = ${end};
  for (var held = ${begin}; held < end; held += ${HELD}u) {
    workgroupBarrier();${fill("y", width)}${fill("z", depth)}
    workgroupBarrier();
  for (var j = held; j < held + ${HELD}u; j += ${STEP}u) {
${body}
  }
  }`;
}
