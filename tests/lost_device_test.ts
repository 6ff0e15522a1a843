/**
 * A device is lost, and another one found. This needs a separate file: all tests of a file share an
 * engine.
 */

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { add } from "../autograd/ops/pointwise.ts";
import { tensor } from "../tensor/create.ts";
import { gpu, gpuName, init } from "../tensor/device.ts";
import { DeviceLostError, NoAdapterError } from "../tensor/errors.ts";
import { memory } from "../tensor/memory.ts";
import { scope } from "../tensor/scope.ts";

Deno.test("every readback and op reports a lost device, until init() finds another", async () => {
  await init();
  const [x, pooled] = [tensor([1, 2, 3]), tensor([4])];
  pooled.release();
  gpu().destroy();
  await assertRejects(() => x.data(), DeviceLostError, "Cannot go on, the GPU device is lost");
  await assertRejects(() => x.data(), DeviceLostError);
  assertThrows(() => add(x, x), DeviceLostError);
  assertThrows(() => tensor([1]), DeviceLostError);
  assertThrows(() => gpuName(), DeviceLostError);

  await Promise.all([init(), init()]);
  const y = scope(() => add(tensor([1, 2]), tensor([3, 4])));
  assertEquals([...await y.data()], [4, 6]);
  // Buffers of the lost device are dropped, not handed out again.
  const { pooledBytes } = memory();
  x.release();
  assertEquals(memory().pooledBytes, pooledBytes);
  y.release();
  assertEquals(memory().liveBuffers, 0);
});

Deno.test("a device lost with work recorded is reported, and its work forgotten", async () => {
  await init();
  const x = tensor([1, 2, 3]);
  const y = add(x, x);
  gpu().destroy();
  await assertRejects(() => y.data(), DeviceLostError);
  await init();
  const z = scope(() => add(tensor([1]), tensor([2])));
  assertEquals(await z.item(), 3);
  for (const each of [x, y, z]) each.release();
});

Deno.test("init() says what to install if there is no GPU, and finds one later", async () => {
  const found = Object.getOwnPropertyDescriptor(globalThis, "navigator")!;
  await init();
  gpu().destroy();
  const read = async () => await tensor([1]).data();
  await assertRejects(read, DeviceLostError);
  for (const navigator of [{}, { gpu: { requestAdapter: () => Promise.resolve(null) } }]) {
    Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
    try {
      await assertRejects(init, NoAdapterError, "apt-get install mesa-vulkan-drivers libvulkan1");
    } finally {
      Object.defineProperty(globalThis, "navigator", found);
    }
  }
  await init();
  const x = tensor([5]);
  assertEquals(await x.item(), 5);
  x.release();
});
