import {
  assert,
  assertAlmostEquals,
  assertEquals,
  assertLess,
  assertNotEquals,
  assertThrows,
} from "@std/assert";
import { hash3, Random } from "../tensor/random.ts";

const U32 = (1n << 32n) - 1n;

/** pcg3d in integers that never overflow, reduced after every step. */
function hash3InBigInt(...input: [number, number, number]): number[] {
  const v = input.map((value) => (BigInt(value) * 1664525n + 1013904223n) & U32);
  const mix = () => {
    v[0] = (v[0] + v[1] * v[2]) & U32;
    v[1] = (v[1] + v[2] * v[0]) & U32;
    v[2] = (v[2] + v[0] * v[1]) & U32;
  };
  mix();
  for (let i = 0; i < 3; i++) v[i] ^= v[i] >> 16n;
  mix();
  return v.map(Number);
}

Deno.test("hash3() is pcg3d in u32 arithmetic", () => {
  const inputs: [number, number, number][] = [
    [0, 0, 0],
    [1, 2, 3],
    [0xffffffff, 0xffffffff, 0xffffffff],
    [0x80000000, 0x7fffffff, 1],
  ];
  const random = new Random(3);
  for (let i = 0; i < 500; i++) inputs.push([random.next(), random.next(), random.next()]);
  for (const input of inputs) assertEquals<number[]>(hash3(...input), hash3InBigInt(...input));
});

Deno.test("Random gives these numbers for ever", () => {
  // A separate program in Python computed these.
  assertEquals(hash3(0, 0, 0), [2611992518, 2833812075, 1058359340]);
  const crops = new Random(1, "crops");
  assertEquals([crops.next(), crops.next(), crops.next()], [583208800, 975099377, 1382535198]);
  assertEquals(new Random(1).shuffle([..."abcdefghij"]).join(""), "higjefbcad");
  assertEquals(new Random(1).normal(), 0.09720349599550612);
});

Deno.test("Random takes numbers and words as seeds, and tells streams and seeds apart", () => {
  const first = (random: Random) => random.next();
  assertEquals(first(new Random(1)), first(new Random("1")));
  assertEquals(first(new Random(1, "a")), first(new Random(1).fork("a")));
  const draws = [
    new Random(1),
    new Random(2),
    new Random(-1),
    new Random(0.1),
    new Random(2 ** 32 + 1),
    new Random(1, ""),
    new Random(1, "a"),
    new Random(1, "b"),
    new Random(1, "ab"),
    new Random(1, "a").fork("b"),
    new Random(1, 2),
    new Random(12),
    new Random(1, "ä"),
    new Random(1, "青"),
  ].map(first);
  assertEquals(new Set(draws).size, draws.length);
});

Deno.test("Random.fork() does not depend on what has been drawn", () => {
  const random = new Random(5);
  const before = random.fork("x").next();
  random.next();
  assertEquals(random.fork("x").next(), before);
  assertNotEquals(random.fork("x").next(), random.fork("y").next());
});

Deno.test("Random.next() is uniform in every bit, and streams do not correlate", () => {
  const draws = 20_000;
  const [a, b] = [new Random(1, 0), new Random(1, 1)];
  const ones = new Array(32).fill(0);
  const equal = new Array(32).fill(0);
  for (let i = 0; i < draws; i++) {
    const x = a.next();
    const same = ~(x ^ b.next());
    for (let bit = 0; bit < 32; bit++) {
      ones[bit] += x >>> bit & 1;
      equal[bit] += same >>> bit & 1;
    }
  }
  // Five standard deviations of a fair coin.
  const slack = 5 * Math.sqrt(draws / 4);
  for (const count of [...ones, ...equal]) assertAlmostEquals(count, draws / 2, slack);
});

Deno.test("Random.uniform() fills [0, 1) evenly, with values exact in float32", () => {
  const random = new Random(9);
  const bins = new Array(100).fill(0);
  for (let i = 0; i < 100_000; i++) {
    const value = random.uniform();
    assert(value >= 0 && value < 1);
    assertEquals(Math.fround(value), value);
    bins[Math.floor(value * 100)]++;
  }
  const chiSquare = bins.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
  // 99 degrees of freedom: mean 99, the 1 - 1e-6 quantile is near 180.
  assertLess(chiSquare, 180);
});

Deno.test("Random.below() is even, and refuses bounds that are not counts", () => {
  const random = new Random(2);
  const bins = [0, 0, 0, 0, 0, 0, 0];
  for (let i = 0; i < 70_000; i++) bins[random.below(7)]++;
  for (const count of bins) assertAlmostEquals(count, 10_000, 500);
  // Without rejection a third of 3 · 2³⁰ values would be drawn twice as often as the rest.
  let small = 0;
  for (let i = 0; i < 10_000; i++) small += Number(random.below(3 * 2 ** 30) < 2 ** 30);
  assertAlmostEquals(small, 3333, 250);
  assertEquals(random.below(1), 0);
  for (const count of [0, -1, 1.5, NaN, 2 ** 33]) {
    assertThrows(() => random.below(count), RangeError);
  }
});

Deno.test("Random.normal() has the moments and tails of the normal distribution", () => {
  const random = new Random(4);
  const draws = Array.from({ length: 100_000 }, () => random.normal());
  const mean = (power: number) => draws.reduce((sum, x) => sum + x ** power, 0) / draws.length;
  assertAlmostEquals(mean(1), 0, 0.015);
  assertAlmostEquals(mean(2), 1, 0.025);
  assertAlmostEquals(mean(3), 0, 0.07);
  assertAlmostEquals(mean(4), 3, 0.2);
  assertAlmostEquals(draws.filter((x) => x > 1.96).length / draws.length, 0.025, 0.0025);
});

Deno.test("Random.shuffle() permutes a copy, and every order is equally likely", () => {
  const values = Object.freeze(["a", "b", "c"]);
  const random = new Random(6);
  const orders = new Map<string, number>();
  for (let i = 0; i < 6000; i++) {
    const order = random.shuffle(values);
    assertEquals([...order].sort(), ["a", "b", "c"]);
    orders.set(order.join(""), (orders.get(order.join("")) ?? 0) + 1);
  }
  assertEquals(orders.size, 6);
  for (const count of orders.values()) assertAlmostEquals(count, 1000, 150);
  assertEquals(random.shuffle([]), []);
});
