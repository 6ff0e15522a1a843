/**
 * Tests that need the GPU, and own what they make.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { tensor } from "../tensor/create.ts";
import { init, shutDown } from "../tensor/device.ts";
import { memory } from "../tensor/memory.ts";

/**
 * A test on the GPU. It fails where there is no adapter, if it ends with another number of live buffers than it began
 * with, and if the GPU reported an error that the test did not wait for.
 */
export function gpuTest(name: string, body: () => void | Promise<void>): void {
  Deno.test(name, async () => {
    await init();
    const { liveBuffers } = memory();
    try {
      await body();
    } catch (error) {
      // What the GPU reported of this test must not fail the next one.
      await settled().catch(() => {});
      throw error;
    }
    assertEquals(memory().liveBuffers, liveBuffers, "live buffers, after and before");
    await settled();
  });
}

Deno.test.afterAll(shutDown);

/** Throws what the GPU reported and nobody has asked for yet. */
async function settled(): Promise<void> {
  const probe = tensor([1]);
  try {
    assertEquals(await probe.item(), 1);
  } finally {
    probe.release();
  }
}
