/**
 * Definitions of models: their sizes without their weights.
 *
 * @module
 */

import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { clipDefinition } from "../../clip/clip.ts";
import { ARCHITECTURES } from "../../clip/config.ts";
import type { ModelDefinition } from "../../clip/model.ts";
import { exists, openFile } from "../system/files.ts";
import { userPath } from "../system/user_path.ts";
import { fetchJson, isHubId } from "./hub.ts";
import { EMBEDDED_MODEL } from "./open_model.ts";
import { definitionOf, kindOfFile, readStated } from "./stated.ts";
import { openTensors, shapesOf } from "./tensor_files.ts";

/**
 * The definition of the model that a user names: a published architecture, a path, or the id of a
 * repository on the hub; the embedded model if `spec` is undefined. No weights are read. If `spec`
 * is a file of weights, the shapes of its tensors are.
 *
 * @throws {Error} If there is no such model, or it is not a CLIP model.
 */
export async function definitionNamed(spec: string | undefined): Promise<ModelDefinition> {
  if (spec !== undefined && Object.hasOwn(ARCHITECTURES, spec)) {
    return clipDefinition(ARCHITECTURES[spec]);
  }
  const path = spec === undefined ? fileURLToPath(EMBEDDED_MODEL) : userPath(spec);
  if (!await exists(path)) return await fetchDefinition(spec!);
  const isFile = (await Deno.stat(path)).isFile;
  const stated = await readStated(isFile ? dirname(path) : path);
  if (!isFile) {
    if (stated.config === null && stated.openClip === null) {
      throw new Error(`Cannot find ${join(path, "config.json")}: is it a CLIP model?`);
    }
    return definitionOf(null, stated);
  }
  using source = await openFile(path);
  const shapes = shapesOf([await openTensors(source)]);
  return definitionOf(kindOfFile(shapes.keys(), stated), stated, shapes);
}

async function fetchDefinition(id: string): Promise<ModelDefinition> {
  const names = Object.keys(ARCHITECTURES).join(", ");
  if (!isHubId(id)) {
    throw new Error(
      `Cannot find the model "${id}": it is none of ${names}, no path, and no hub id OWNER/NAME`,
    );
  }
  const config = await fetchJson(id, "config.json");
  const openClip = await fetchJson(id, "open_clip_config.json");
  if (config === null && openClip === null) {
    throw new Error(
      `Cannot fetch the configuration of "${id}": the hub has no such model, or it is no CLIP`,
    );
  }
  return definitionOf(null, { config, openClip });
}
