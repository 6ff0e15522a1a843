/**
 * The methods, and the baselines that they are compared with. To add one, add its file and a line
 * here. Nothing else names one.
 *
 * @module
 */

export { blockLora } from "./block_lora.ts";
export { blockLoraCollapsed } from "./block_lora_collapsed.ts";
export { dora } from "./dora.ts";
export { linearProbe } from "./linear_probe.ts";
export { lora } from "./lora.ts";
export { loraDense } from "./lora_dense.ts";
export { vera } from "./vera.ts";
export { zeroShot } from "./zero_shot.ts";
