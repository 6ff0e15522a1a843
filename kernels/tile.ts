/**
 * What kernels that multiply in tiles are put together from: WGSL that loads operands, shared in one of three variants,
 * and WGSL that multiplies what was loaded.
 *
 * A tile has up to 256 accumulators, each with a name, because a software adapter keeps an array that a loop
 * indexes in memory, at half the speed. For each step along k an invocation needs as many numbers as its tile has rows
 * and columns, and multiplies as often as it has elements: loading is what takes the time.
 *
 * @module
 */

/**
 * How an operand lies: in whole vec4 along the inner axis k, in whole vec4 along its outer axis (the rows of the left
 * operand, the columns of the right one), or with any strides.
 */
export type Along = "inner" | "outer" | "any";

/** An operand of a product, left or right. Its outer axis has rows or columns; `at` is the number of one. */
export interface Operand {
  /** What its names begin with. */
  readonly name: string;
  /** How it lies. */
  readonly along: Along;
  /** How many rows or columns an invocation has, a multiple of 4. */
  readonly count: number;
  /** WGSL of the number of an invocation's f-th. */
  readonly index: (f: number) => string;
  /** WGSL of the number of the tile's f-th, of which a lane has f; if it lies along the outer axis, f is a multiple of 4. */
  readonly nth: (f: string) => string;
  /** WGSL of where its loads begin. */
  readonly base: (at: string) => string;
  /** WGSL of four numbers from there on along k, which counts fours; or along the outer axis, k counting ones. */
  readonly load: (base: string, k: string) => string;
}

/** WGSL before a loop along k, which counts fours, and within it. */
export interface Loads {
  /** Where the loads begin. */
  readonly before: string;
  /** The loads, of step `k`. */
  readonly within: string;
}

export const PARTS = "xyzw";
/** The numbers from 0 to before `count`. */
export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);
/** Lines, one for each of them. */
export const each = (count: number, line: (i: number) => string): string =>
  range(count).map(line).join("\n");
/** A text, or none. */
export const optional = (wanted: boolean, text: string): string => wanted ? text : "";

/**
 * What the loads of an operand give: a vec4 along k of each row or column, or the four steps along k of each four of
 * them. `f` is the first of those rows or columns, `l` the step.
 */
function fragmentsOf({ name, along, count }: Operand): { value: string; f: number; l: number }[] {
  return range(count).map((i) => {
    if (along !== "outer") return { value: `${name}_${i}`, f: i, l: 0 };
    const [l, quad] = [Math.floor(i / (count / 4)), i % (count / 4)];
    return { value: `${name}${l}_${quad}`, f: 4 * quad, l };
  });
}

/** Each invocation loads all that it needs. */
export function directLoads(operand: Operand): Loads {
  const { name, along, index, base, load } = operand;
  const fragments = fragmentsOf(operand);
  return {
    before: fragments.filter(({ l }) => l === 0).map(({ f }) =>
      `  let ${name}_at${f} = ${base(index(f))};`
    ).join("\n"),
    within: fragments.map(({ value, f, l }) =>
      `    let ${value} = ${load(`${name}_at${f}`, along === "outer" ? `4u * k + ${l}u` : "k")};`
    ).join("\n"),
  };
}

/** Lanes that need the same load a share of it each, and hand it around: the i-th lane the i-th fragment of a round. */
export function subgroupBroadcastLoads(operand: Operand, lanes: number): Loads {
  const { name, along, count, nth, base, load } = operand;
  const rounds = Math.ceil(count / lanes);
  const quads = count / 4;
  const before = each(rounds, (round) => {
    const f = `${name}_f${round}`;
    const at = base(nth(along === "outer" ? `(4u * (${f} % ${quads}u))` : f));
    return `  let ${f} = (lane + ${
      round * lanes
    }u) % ${count}u;\n  let ${name}_at${round} = ${at};`;
  });
  const within = each(rounds, (round) => {
    const k = along === "outer" ? `4u * k + ${name}_f${round} / ${quads}u` : "k";
    return `    let ${name}_mine${round} = ${load(`${name}_at${round}`, k)};`;
  }) + "\n" +
    fragmentsOf(operand).map(({ value }, i) =>
      `    let ${value} = subgroupBroadcast(${name}_mine${Math.floor(i / lanes)}, ${i % lanes}u);`
    ).join("\n");
  return { before, within };
}

/** Steps along k whose numbers a workgroup holds in its memory at a time. */
export const DEPTH = 16;

/** How a workgroup loads an operand together. */
export interface Staging {
  /** WGSL outside functions: the memory, and a function that fills some of it. */
  readonly declarations: string;
  /** WGSL that fills it with the steps along k from `k` on, which counts fours, up to `end`. */
  readonly fill: string;
  /** WGSL that takes from it what an invocation needs of the four steps from `step` on. */
  readonly take: string;
}

/**
 * Loads of a workgroup: its memory holds `quads` vec4 along the outer axis for each step, and is filled 4 × 4 numbers at
 * a time. Its rows are a vec4 longer than that: the lanes that fill it would else meet in the same banks. `slot` is WGSL
 * of the index among the vec4 of an invocation's q-th. `end` is where k ends, and `scope` are variables that the operand's
 * WGSL names.
 */
export function workgroupStagedLoads(
  operand: Operand,
  { memory, quads, threads, slot, end, scope }: {
    readonly memory: string;
    readonly quads: number;
    readonly threads: number;
    readonly slot: (q: number) => string;
    readonly end: string;
    readonly scope: readonly string[];
  },
): Staging {
  const { name, along, count, nth, base, load } = operand;
  // Neighbouring lanes read along the axis that lies in vec4.
  const [step, quad] = along === "outer"
    ? [`u / ${quads}u`, `u % ${quads}u`]
    : [`u % ${DEPTH / 4}u`, `u / ${DEPTH / 4}u`];
  const known = (h: number, k: string) =>
    `select(vec4f(), ${load(base(nth(`(4u * quad + ${h}u)`)), k)}, k + step < end)`;
  const values = along === "outer"
    ? each(4, (l) => `  let v${l} = ${known(0, `4u * (k + step) + ${l}u`)};`)
    : each(4, (h) => `  let w${h} = ${known(h, "(k + step)")};`) + "\n" +
      each(
        4,
        (l) => `  let v${l} = vec4f(${range(4).map((h) => `w${h}.${PARTS[l]}`).join(", ")});`,
      );
  const parameters = ["u", "k", "end", ...scope];
  return {
    declarations: `fn stage_${name}(${
      parameters.map((parameter) => `${parameter}: u32`).join(", ")
    }) {
  let step = ${step};
  let quad = ${quad};
${values}
${each(4, (l) => `  ${memory}[(4u * step + ${l}u) * ${quads + 1}u + quad] = v${l};`)}
}`,
    fill: `    for (var u = index; u < ${quads * DEPTH / 4}u; u += ${threads}u) {
      stage_${name}(${["u", "k", end, ...scope].join(", ")});
    }`,
    take: each(
      4,
      (l) =>
        each(
          count / 4,
          (q) =>
            `      let ${name}${l}_${q} = ${memory}[(step + ${l}u) * ${quads + 1}u + ${slot(q)}];`,
        ),
    ),
  };
}

/** WGSL of workgroup memory for {@linkcode workgroupStagedLoads}. */
export function stagingMemory(memory: string, quads: number): string {
  return `var<workgroup> ${memory}: array<vec4f, ${DEPTH * (quads + 1)}>;`;
}

/** Bytes of it. */
export const stagingBytes = (quads: number): number => 16 * DEPTH * (quads + 1);

/** A loop along k of a workgroup that loads together. */
export function togetherWgsl(
  sides: readonly Staging[],
  first: string,
  end: string,
  body: string,
): string {
  return `
  for (var k = ${first}; k < ${end}; k += ${DEPTH / 4}u) {
    workgroupBarrier();
${sides.map(({ fill }) => fill).join("\n")}
    workgroupBarrier();
    for (var step = 0u; step < ${DEPTH}u; step += 4u) {
${sides.map(({ take }) => take).join("\n")}
${body}
    }
  }`;
}

/** A loop along k whose invocations load apart. */
export function apartWgsl(
  sides: readonly Loads[],
  first: string,
  end: string,
  body: string,
): string {
  return `${sides.map(({ before }) => before).join("\n")}
  for (var k = ${first}; k < ${end}; k++) {
${sides.map(({ within }) => within).join("\n")}
${body}
  }`;
}

/**
 * Four steps along k, `sum += a · c`, that touch each accumulator once; `sum` names that of row i and columns 4 j to
 * 4 j + 3. With `short` the four are summed first, which makes chains of a quarter of the length, and rounds less; it is
 * one operation more, which a software adapter does beside its loads. What workgroup memory gives lies along the outer axis.
 */
export function multiplyAdd(
  a: Pick<Operand, "name" | "along" | "count">,
  c: Pick<Operand, "name" | "along" | "count">,
  sum: (i: number, j: number) => string,
  short: boolean,
): string {
  const ofA = (i: number, l: number) =>
    a.along === "outer" ? `${a.name}${l}_${i >> 2}.${PARTS[i & 3]}` : `${a.name}_${i}.${PARTS[l]}`;
  const ofC = (j: number, l: number) =>
    c.along === "outer"
      ? `${c.name}${l}_${j}`
      : `vec4f(${range(4).map((h) => `${c.name}_${4 * j + h}.${PARTS[l]}`).join(", ")})`;
  return each(
    c.count / 4,
    (j) =>
      each(4, (l) => `    let ${c.name}_col${l}_${j} = ${ofC(j, l)};`) + "\n" +
      each(a.count, (i) => {
        const chain = (steps: readonly number[], from: string) =>
          steps.reduce(
            (total, l) => `fma(vec4f(${ofA(i, l)}), ${c.name}_col${l}_${j}, ${total})`,
            from,
          );
        return short
          ? `    ${sum(i, j)} += ${chain([1, 2, 3], `${ofA(i, 0)} * ${c.name}_col0_${j}`)};`
          : `    ${sum(i, j)} = ${chain([0, 1, 2, 3], sum(i, j))};`;
      }),
  );
}
