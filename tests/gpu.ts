/**
 * Tests that need the GPU, and release what they make.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { tensor } from "../tensor/create.ts";
import { init, shutDown } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";

/**
 * A test on the GPU. It fails if there is no GPU, if it ends with another number of live buffers
 * than it began with, and if the GPU reported an error that the test did not wait for.
 */
export function gpuTest(name: string, body: () => void | Promise<void>): void {
  Deno.test(name, async () => {
    await init();
    const { liveBuffers } = memory();
    try {
      await body();
    } catch (error) {
      // What the GPU reported about this test must not fail the next one.
      await settled().catch(() => {});
      throw error;
    }
    assertEquals(memory().liveBuffers, liveBuffers, "live buffers, after and before");
    await settled();
  });
}

Deno.test.afterAll(shutDown);

/** Throws the errors that the GPU reported and nobody has asked for yet. */
async function settled(): Promise<void> {
  const one = tensor([1]);
  try {
    assertEquals(await one.item(), 1);
  } finally {
    one.release();
  }
}
